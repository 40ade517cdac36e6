# docker buildx bake -f images/docker-bake.hcl [cpu|cuda]      from the checkout's root; or: nimctl build cpu|cuda
#
# Everything that differs between hosts comes in through these variables, as environment variables of the same name.

variable "NIMCTL_BUILD_BASE" { default = "docker.io/library/debian:12-slim" } # any Debian 12
variable "NIMCTL_BUILD_IMAGES" { default = "images" }                       # this folder
variable "NIMCTL_BUILD_WHEELS" { default = "" }                             # a folder of local wheels
variable "NIMCTL_BUILD_CA" { default = "" }                                 # a CA bundle file
variable "NIMCTL_BUILD_PIP" { default = "" }                                # a pip configuration file
variable "NIMCTL_BUILD_PROXY" { default = "" }                              # shell that exports the proxies
variable "NIMCTL_BUILD_KERNELS" { default = "auto" }                        # FlashInfer's: auto, required, off
variable "NIMCTL_BUILD_PLATFORMS" { default = "linux/amd64,linux/arm64" }   # empty: the builder's own
variable "NIMCTL_BUILD_TAG" { default = "" }                                # empty: nimctl/DEVICE:VERSION-vllmENGINE
variable "NIMCTL_BUILD_VERSION" { default = "dev" }
variable "NIMCTL_BUILD_REVISION" { default = "unknown" }
variable "NIMCTL_BUILD_SOURCE" { default = "" }                             # where the source code lives, as a URL
variable "NIMCTL_BUILD_SNAPSHOT" { default = "" }                           # Debian's packages of 20261120T000000Z
variable "SOURCE_DATE_EPOCH" { default = "" }                               # the image's date; empty: now

variable "ENGINE_VERSION" { default = "0.32.0" }

group "default" {
  targets = ["cpu", "cuda"]
}

function "tag" {
  params = [device]
  result = [NIMCTL_BUILD_TAG != "" ? NIMCTL_BUILD_TAG : "nimctl/${device}:${NIMCTL_BUILD_VERSION}-vllm${ENGINE_VERSION}"]
}

function "labels" {
  params = [device]
  result = merge(NIMCTL_BUILD_SOURCE == "" ? {} : { "org.opencontainers.image.source" = NIMCTL_BUILD_SOURCE }, {
    "org.opencontainers.image.title"    = "nimctl ${device}"
    "org.opencontainers.image.version"  = NIMCTL_BUILD_VERSION
    "org.opencontainers.image.revision" = NIMCTL_BUILD_REVISION
    "org.opencontainers.image.licenses" = "Apache-2.0"
    "io.nimctl.engine"                  = "vllm"
    "io.nimctl.engine.version"          = ENGINE_VERSION
    "io.nimctl.engine.device"           = device
  })
}

target "_common" {
  context    = "."
  dockerfile = "${NIMCTL_BUILD_IMAGES}/Dockerfile"
  target     = "image"
  contexts   = merge({ images = NIMCTL_BUILD_IMAGES }, NIMCTL_BUILD_WHEELS == "" ? {} : { wheels = NIMCTL_BUILD_WHEELS })
  platforms  = NIMCTL_BUILD_PLATFORMS == "" ? [] : split(",", NIMCTL_BUILD_PLATFORMS)
  args = {
    BASE              = NIMCTL_BUILD_BASE
    SNAPSHOT          = NIMCTL_BUILD_SNAPSHOT == "" ? null : NIMCTL_BUILD_SNAPSHOT
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH == "" ? null : SOURCE_DATE_EPOCH
  }
  secret = concat(
    NIMCTL_BUILD_CA == "" ? [] : ["id=ca,src=${NIMCTL_BUILD_CA}"],
    NIMCTL_BUILD_PIP == "" ? [] : ["id=pip,src=${NIMCTL_BUILD_PIP}"],
    NIMCTL_BUILD_PROXY == "" ? [] : ["id=proxy,src=${NIMCTL_BUILD_PROXY}"],
  )
}

target "cpu" {
  inherits = ["_common"]
  args     = { DEVICE = "cpu" }
  labels   = labels("cpu")
  tags     = tag("cpu")
}

target "cuda" {
  inherits = ["_common"]
  args = {
    DEVICE  = "cuda"
    KERNELS = NIMCTL_BUILD_KERNELS
  }
  labels = labels("cuda")
  tags   = tag("cuda")
}
