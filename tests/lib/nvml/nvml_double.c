/* libnvidia-ml.so.1 for hosts without a GPU: answers NVML calls from a JSON file.
 *
 * The file is $NVML_DOUBLE_JSON, else the library's own path with ".json" behind it (so a container needs two mounts and
 * no variable). It is read at each nvmlInit. profiles.py beside this file writes it and documents every key; a value that
 * is missing there makes its call answer NOT_SUPPORTED, as hardware without the feature does.
 *
 * Faults, on the host or on one GPU:  "faults": {"nvmlDeviceGetName": {"error": 15, "hang_ms": 200}, "*": {...}}
 * "after": k lets the first k such calls answer, "times": n fails only the n calls behind them.
 * "visible_by_device_nodes": true shows only GPUs whose /dev/nvidia<minor> exists, as the driver does in a container.
 *
 * Layouts and error codes: NVML API reference, https://docs.nvidia.com/deploy/nvml-api/
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "json.h"

#define API __attribute__((visibility("default"))) int
#define MAX_DEVICES 1024
#define MAX_PARTS (8 * MAX_DEVICES) /* MIG devices of all GPUs */
#define MAX_DOCUMENT (32 << 20)

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    VERSION_MISMATCH = 25, UNKNOWN = 999
};

/* What an nvmlDevice_t points to: a GPU, or a MIG device of one. */
typedef struct {
    const json *gpu;
    const json *mig; /* NULL for a whole GPU */
    unsigned index;
} device;

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_info;

typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process_info;
typedef struct { unsigned char cluster[16]; int status; unsigned clique; unsigned char state; } fabric_v1;
typedef struct {
    unsigned version; unsigned char cluster[16]; int status; unsigned clique; unsigned char state; unsigned health_mask;
    unsigned char health_summary; /* version 3 only */
} fabric_v;
typedef struct {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpegs, ofas, gpu_slices, compute_slices;
    unsigned long long memory_mb;
} attributes;

static json *host;
static int users;
static device gpus[MAX_DEVICES], migs[MAX_PARTS];
static unsigned gpu_count, mig_count;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER; /* NVML may be started by several threads at once */

/* --- reading the file ------------------------------------------------------------------------------------------- */

static char *read_file(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NULL;
    char *text = malloc(MAX_DOCUMENT + 1);
    size_t length = 0;
    ssize_t got = 0;
    while (text && length < MAX_DOCUMENT && (got = read(file, text + length, MAX_DOCUMENT - length)) > 0)
        length += (size_t)got;
    close(file);
    if (text && (got < 0 || memchr(text, 0, length))) {
        free(text);
        return NULL;
    }
    if (text) text[length] = '\0';
    return text;
}

static json *read_host(void) {
    const char *named = getenv("NVML_DOUBLE_JSON");
    char beside[4096] = "";
    Dl_info self;
    if (!named && dladdr((void *)&read_host, &self)) {
        snprintf(beside, sizeof beside, "%s.json", self.dli_fname);
        named = beside;
    }
    char *text = named ? read_file(named) : NULL;
    json *root = text ? json_read(text) : NULL;
    free(text);
    if (root && root->kind != JSON_OBJECT) {
        json_free(root);
        root = NULL;
    }
    if (!root) fprintf(stderr, "nvml double: cannot read %s\n", named ? named : "(no file)");
    return root;
}

static int visible(const json *gpu, unsigned position) {
    if (!json_int(host, "visible_by_device_nodes", 0)) return 1;
    char node[64];
    snprintf(node, sizeof node, "/dev/nvidia%lld", json_int(gpu, "minor", position));
    return access(node, F_OK) == 0;
}

static void find_devices(void) {
    const json *list = json_get(host, "gpus");
    unsigned i = 0;
    gpu_count = mig_count = 0;
    for (const json *gpu = json_at(list, 0); gpu && gpu_count < MAX_DEVICES; gpu = gpu->next, i++) {
        const json *parts = json_get(gpu, "mig_devices");
        if (gpu->kind != JSON_OBJECT || !visible(gpu, i)) continue;
        for (unsigned m = 0; m < json_count(parts) && mig_count < MAX_PARTS; m++)
            migs[mig_count++] = (device){gpu, json_at(parts, m), m};
        gpus[gpu_count] = (device){gpu, NULL, gpu_count};
        gpu_count++;
    }
}

/* --- faults ----------------------------------------------------------------------------------------------------- */

static int apply(const json *fault) {
    long long after = json_int(fault, "after", 0), times = json_int(fault, "times", -1);
    if (fault && (after || times >= 0)) { /* counted from nvmlInit, in the number that an object has no other use for */
        long long before = __sync_fetch_and_add(&((json *)fault)->number, 1);
        if (before < after || (times >= 0 && before >= after + times)) return OK;
    }
    long long pause = json_int(fault, "hang_ms", 0);
    struct timespec left = {pause / 1000, (pause % 1000) * 1000000};
    while (pause > 0 && nanosleep(&left, &left) != 0) continue;
    return (int)json_int(fault, "error", OK);
}

static int fault_in(const json *owner, const char *call) {
    const json *faults = json_get(owner, "faults");
    const json *fault = json_get(faults, call);
    return apply(fault ? fault : json_get(faults, "*"));
}

/* Function names in faults carry no _v2 or _v3: the versions are one call to a reader. */
static int system_fault(const char *call) {
    if (!users) return UNINITIALIZED;
    return fault_in(host, call);
}

static int device_fault(const void *handle, const char *call) {
    int error = system_fault(call);
    if (error) return error;
    const device *d = handle;
    int known = (d >= gpus && d < gpus + gpu_count) || (d >= migs && d < migs + mig_count);
    return known ? fault_in(d->gpu, call) : INVALID_ARGUMENT;
}

#define SYSTEM(call) do { int e_ = system_fault(call); if (e_) return e_; } while (0)
#define DEVICE(call) const device *d = handle; do { int e_ = device_fault(handle, call); if (e_) return e_; } while (0)

/* --- answers ---------------------------------------------------------------------------------------------------- */

static int put_text(const char *text, char *out, unsigned size) {
    if (!text) return NOT_SUPPORTED;
    if (!out) return INVALID_ARGUMENT;
    if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return OK;
}

static int put_uint(const json *owner, const char *key, unsigned *out) {
    const json *member = json_get(owner, key);
    if (!out) return INVALID_ARGUMENT;
    if (!member || (member->kind != JSON_NUMBER && member->kind != JSON_BOOL)) return NOT_SUPPORTED;
    *out = (unsigned)member->number;
    return OK;
}

static const json *part(const device *d) { return d->mig ? d->mig : d->gpu; }

/* A call that answers one unsigned number of the GPU. */
#define NUMBER(function, call, key) \
    API function(void *handle, unsigned *out) { DEVICE(call); return put_uint(d->gpu, key, out); }

NUMBER(nvmlDeviceGetMinorNumber, "nvmlDeviceGetMinorNumber", "minor")
NUMBER(nvmlDeviceGetBrand, "nvmlDeviceGetBrand", "brand")
NUMBER(nvmlDeviceGetArchitecture, "nvmlDeviceGetArchitecture", "architecture")
NUMBER(nvmlDeviceGetComputeMode, "nvmlDeviceGetComputeMode", "compute_mode")
NUMBER(nvmlDeviceGetPersistenceMode, "nvmlDeviceGetPersistenceMode", "persistence_mode")
NUMBER(nvmlDeviceGetPowerUsage, "nvmlDeviceGetPowerUsage", "power_mw")
NUMBER(nvmlDeviceGetEnforcedPowerLimit, "nvmlDeviceGetEnforcedPowerLimit", "power_limit_mw")
NUMBER(nvmlDeviceGetPowerManagementLimit, "nvmlDeviceGetPowerManagementLimit", "power_limit_mw")
NUMBER(nvmlDeviceGetNumGpuCores, "nvmlDeviceGetNumGpuCores", "cores")
NUMBER(nvmlDeviceGetMaxMigDeviceCount, "nvmlDeviceGetMaxMigDeviceCount", "mig_max")
NUMBER(nvmlDeviceGetPerformanceState, "nvmlDeviceGetPerformanceState", "performance_state")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, "nvmlDeviceGetCurrPcieLinkGeneration", "pcie_generation")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, "nvmlDeviceGetMaxPcieLinkGeneration", "pcie_generation_max")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, "nvmlDeviceGetCurrPcieLinkWidth", "pcie_width")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, "nvmlDeviceGetMaxPcieLinkWidth", "pcie_width_max")
NUMBER(nvmlDeviceGetNumaNodeId, "nvmlDeviceGetNumaNodeId", "memory_numa_node")
NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, "nvmlDeviceGetRetiredPagesPendingStatus", "retirement_pending")
NUMBER(nvmlDeviceGetDisplayActive, "nvmlDeviceGetDisplayActive", "display_active")
NUMBER(nvmlDeviceGetDisplayMode, "nvmlDeviceGetDisplayMode", "display_active")
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, "nvmlDeviceGetPowerManagementDefaultLimit", "power_limit_mw")
NUMBER(nvmlDeviceGetMultiGpuBoard, "nvmlDeviceGetMultiGpuBoard", "multi_gpu_board")
NUMBER(nvmlDeviceGetBoardId, "nvmlDeviceGetBoardId", "board_id")
NUMBER(nvmlDeviceGetMemoryBusWidth, "nvmlDeviceGetMemoryBusWidth", "memory_bus_width")
NUMBER(nvmlDeviceGetFanSpeed, "nvmlDeviceGetFanSpeed", "fan_percent")

API nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&starting);
    if (!users) {
        json_free(host);
        host = read_host();
        if (host) find_devices();
    }
    int error = host ? apply(json_get(json_get(host, "faults"), "nvmlInit")) : UNKNOWN;
    if (!error) users++;
    pthread_mutex_unlock(&starting);
    return error;
}
API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API nvmlInit(void) { return nvmlInitWithFlags(0); }

API nvmlShutdown(void) {
    int error = system_fault("nvmlShutdown");
    pthread_mutex_lock(&starting);
    if (users) users--;
    pthread_mutex_unlock(&starting);
    return error;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(int error) {
    static const struct { int code; const char *text; } known[] = {
        {0, "Success"}, {1, "Uninitialized"}, {2, "Invalid Argument"}, {3, "Not Supported"},
        {4, "Insufficient Permissions"}, {5, "Already Initialized"}, {6, "Not Found"}, {7, "Insufficient Size"}, {9, "Driver Not Loaded"},
        {10, "Timeout"}, {12, "NVML Shared Library Not Found"}, {13, "Function Not Found"}, {15, "GPU is lost"},
        {16, "GPU requires reset"}, {17, "GPU access blocked by the operating system"},
        {18, "Driver/library version mismatch"}, {20, "Insufficient Memory"}, {999, "Unknown Error"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].code == error) return known[i].text;
    return "Unknown Error";
}

API nvmlSystemGetDriverVersion(char *out, unsigned size) {
    SYSTEM("nvmlSystemGetDriverVersion");
    return put_text(json_string(host, "driver_version"), out, size);
}
API nvmlSystemGetNVMLVersion(char *out, unsigned size) {
    SYSTEM("nvmlSystemGetNVMLVersion");
    return put_text(json_string(host, "nvml_version"), out, size);
}
API nvmlSystemGetCudaDriverVersion_v2(int *out) {
    SYSTEM("nvmlSystemGetCudaDriverVersion");
    return put_uint(host, "cuda_driver_version", (unsigned *)out);
}
API nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }

/* --- finding devices -------------------------------------------------------------------------------------------- */

API nvmlDeviceGetCount_v2(unsigned *out) {
    SYSTEM("nvmlDeviceGetCount");
    if (!out) return INVALID_ARGUMENT;
    *out = gpu_count;
    return OK;
}
API nvmlDeviceGetCount(unsigned *out) { return nvmlDeviceGetCount_v2(out); }

static int give(const device *found, const char *call, void **handle) {
    if (!handle) return INVALID_ARGUMENT;
    *handle = (void *)found;
    return fault_in(found->gpu, call);
}

API nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    SYSTEM("nvmlDeviceGetHandleByIndex");
    return index < gpu_count ? give(&gpus[index], "nvmlDeviceGetHandleByIndex", handle) : INVALID_ARGUMENT;
}
API nvmlDeviceGetHandleByIndex(unsigned index, void **handle) { return nvmlDeviceGetHandleByIndex_v2(index, handle); }

static int by_text(const device *list, unsigned count, const char *key, const char *text, const char *call, void **handle) {
    for (unsigned i = 0; i < count; i++) {
        const char *own = json_string(part(&list[i]), key);
        if (own && text && strcmp(own, text) == 0) return give(&list[i], call, handle);
    }
    return NOT_FOUND;
}

API nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    static const char call[] = "nvmlDeviceGetHandleByUUID";
    SYSTEM(call);
    int error = by_text(gpus, gpu_count, "uuid", uuid, call, handle);
    return error == NOT_FOUND ? by_text(migs, mig_count, "uuid", uuid, call, handle) : error;
}
API nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **handle) {
    SYSTEM("nvmlDeviceGetHandleByPciBusId");
    return by_text(gpus, gpu_count, "pci_bus_id", bus_id, "nvmlDeviceGetHandleByPciBusId", handle);
}

API nvmlDeviceGetIndex(void *handle, unsigned *out) {
    DEVICE("nvmlDeviceGetIndex");
    if (!out) return INVALID_ARGUMENT;
    *out = d->index;
    return OK;
}
API nvmlDeviceGetName(void *handle, char *out, unsigned size) {
    DEVICE("nvmlDeviceGetName");
    return put_text(json_string(part(d), "name"), out, size);
}
API nvmlDeviceGetUUID(void *handle, char *out, unsigned size) {
    DEVICE("nvmlDeviceGetUUID");
    return put_text(json_string(part(d), "uuid"), out, size);
}
API nvmlDeviceGetSerial(void *handle, char *out, unsigned size) {
    DEVICE("nvmlDeviceGetSerial");
    return put_text(json_string(d->gpu, "serial"), out, size);
}
API nvmlDeviceGetVbiosVersion(void *handle, char *out, unsigned size) {
    DEVICE("nvmlDeviceGetVbiosVersion");
    return put_text(json_string(d->gpu, "vbios_version"), out, size);
}

static unsigned hex_at(const char *text, unsigned digits) {
    unsigned value = 0;
    for (unsigned i = 0; i < digits; i++) {
        char c = text[i];
        value = value * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
}

API nvmlDeviceGetPciInfo_v3(void *handle, pci_info *out) {
    DEVICE("nvmlDeviceGetPciInfo");
    const char *id = json_string(d->gpu, "pci_bus_id"); /* 00000000:18:00.0 */
    if (!id || strlen(id) != 16) return NOT_SUPPORTED;
    if (!out) return INVALID_ARGUMENT;
    memset(out, 0, sizeof *out);
    strcpy(out->bus_id, id);
    memcpy(out->bus_id_legacy, id + 4, 12);
    out->domain = hex_at(id, 8);
    out->bus = hex_at(id + 9, 2);
    out->device = hex_at(id + 12, 2);
    out->pci_device_id = (unsigned)json_int(d->gpu, "pci_device_id", 0);
    return OK;
}
API nvmlDeviceGetPciInfo_v2(void *handle, pci_info *out) { return nvmlDeviceGetPciInfo_v3(handle, out); }

/* --- memory, compute, health ------------------------------------------------------------------------------------ */

API nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2 *out) {
    DEVICE("nvmlDeviceGetMemoryInfo");
    if (!out) return INVALID_ARGUMENT;
    if (out->version != (sizeof *out | 2u << 24)) return VERSION_MISMATCH;
    long long total = json_int(part(d), "memory_total", -1);
    if (total < 0) return NOT_SUPPORTED;
    out->total = (unsigned long long)total;
    out->reserved = (unsigned long long)json_int(part(d), "memory_reserved", 0);
    out->used = (unsigned long long)json_int(part(d), "memory_used", 0);
    out->free = out->total > out->reserved + out->used ? out->total - out->reserved - out->used : 0;
    return OK;
}
API nvmlDeviceGetMemoryInfo(void *handle, memory_v1 *out) { /* version 1 counts the reserved bytes as used */
    memory_v2 v2 = {.version = sizeof v2 | 2u << 24};
    int error = nvmlDeviceGetMemoryInfo_v2(handle, &v2);
    if (!error && !out) return INVALID_ARGUMENT;
    if (!error) *out = (memory_v1){v2.total, v2.free, v2.used + v2.reserved};
    return error;
}
API nvmlDeviceGetBAR1MemoryInfo(void *handle, memory_v1 *out) {
    DEVICE("nvmlDeviceGetBAR1MemoryInfo");
    long long total = json_int(d->gpu, "bar1_total", -1);
    if (total < 0) return NOT_SUPPORTED;
    if (!out) return INVALID_ARGUMENT;
    *out = (memory_v1){(unsigned long long)total, (unsigned long long)total, 0};
    return OK;
}

API nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    DEVICE("nvmlDeviceGetCudaComputeCapability");
    int error = put_uint(d->gpu, "compute_capability_major", (unsigned *)major);
    return error ? error : put_uint(d->gpu, "compute_capability_minor", (unsigned *)minor);
}
/* A mode with what it becomes at the next reset, which is the same unless the file says otherwise. */
static int put_mode(const json *gpu, const char *key, const char *pending_key, unsigned *current, unsigned *pending) {
    int error = put_uint(gpu, key, current);
    if (error) return error;
    return put_uint(gpu, json_get(gpu, pending_key) ? pending_key : key, pending);
}
API nvmlDeviceGetEccMode(void *handle, unsigned *current, unsigned *pending) {
    DEVICE("nvmlDeviceGetEccMode");
    return put_mode(d->gpu, "ecc_mode", "ecc_mode_pending", current, pending);
}
API nvmlDeviceGetTotalEccErrors(void *handle, unsigned type, unsigned counter, unsigned long long *out) {
    static const char *const keys[2][2] = {{"ecc_corrected_volatile", "ecc_corrected_aggregate"},
                                           {"ecc_uncorrected_volatile", "ecc_uncorrected_aggregate"}};
    DEVICE("nvmlDeviceGetTotalEccErrors");
    if (type > 1 || counter > 1 || !out) return INVALID_ARGUMENT;
    if (json_int(d->gpu, "ecc_mode", 0) != 1) return NOT_SUPPORTED;
    *out = (unsigned long long)json_int(d->gpu, keys[type][counter], 0);
    return OK;
}
API nvmlDeviceGetRetiredPages(void *handle, unsigned cause, unsigned *count, unsigned long long *pages) {
    static const char *const keys[2] = {"retired_single_bit", "retired_double_bit"};
    DEVICE("nvmlDeviceGetRetiredPages");
    const json *list = cause < 2 ? json_get(d->gpu, keys[cause]) : NULL;
    if (!list) return cause < 2 ? NOT_SUPPORTED : INVALID_ARGUMENT; /* Ampere and later remap rows instead */
    if (!count) return INVALID_ARGUMENT;
    unsigned all = json_count(list), room = *count;
    *count = all;
    if (all > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; pages && i < all; i++) pages[i] = (unsigned long long)json_at(list, i)->number;
    return OK;
}
API nvmlDeviceGetRetiredPages_v2(void *handle, unsigned cause, unsigned *count, unsigned long long *pages,
                                 unsigned long long *times) {
    int error = nvmlDeviceGetRetiredPages(handle, cause, count, pages);
    for (unsigned i = 0; !error && times && i < *count; i++) times[i] = 0;
    return error;
}
API nvmlDeviceGetRemappedRows(void *handle, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    DEVICE("nvmlDeviceGetRemappedRows");
    if (!corrected || !uncorrected || !pending || !failed) return INVALID_ARGUMENT;
    if (!json_get(d->gpu, "remapped_corrected")) return NOT_SUPPORTED; /* older than Ampere, or no memory of its own */
    *corrected = (unsigned)json_int(d->gpu, "remapped_corrected", 0);
    *uncorrected = (unsigned)json_int(d->gpu, "remapped_uncorrected", 0);
    *pending = (unsigned)json_int(d->gpu, "remap_pending", 0);
    *failed = (unsigned)json_int(d->gpu, "remap_failed", 0);
    return OK;
}
API nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *out) {
    DEVICE("nvmlDeviceGetTemperature");
    return sensor == 0 ? put_uint(d->gpu, "temperature", out) : INVALID_ARGUMENT;
}
API nvmlDeviceGetTemperatureV(void *handle, unsigned *out) { /* version, sensor, temperature */
    if (!out) return INVALID_ARGUMENT;
    return out[0] == 0x100000C ? nvmlDeviceGetTemperature(handle, out[1], &out[2]) : VERSION_MISMATCH;
}
API nvmlDeviceGetUtilizationRates(void *handle, unsigned *out) { /* gpu, memory: percent */
    DEVICE("nvmlDeviceGetUtilizationRates");
    if (!out) return INVALID_ARGUMENT;
    if (json_int(d->gpu, "mig_mode", 0)) return NOT_SUPPORTED;
    out[0] = (unsigned)json_int(d->gpu, "utilization_gpu", 0);
    out[1] = (unsigned)json_int(d->gpu, "utilization_memory", 0);
    return OK;
}

static int processes(const char *call, const char *key, void *handle, unsigned *count, process_info *out) {
    DEVICE(call);
    const json *list = json_get(part(d), key);
    unsigned all = json_count(list), room = count ? *count : 0;
    if (!count) return INVALID_ARGUMENT;
    *count = all;
    if (all > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < all && out; i++) {
        const json *process = json_at(list, i);
        out[i] = (process_info){(unsigned)json_int(process, "pid", 0),
                                (unsigned long long)json_int(process, "memory_used", -1), ~0u, ~0u};
    }
    return OK;
}
API nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_info *out) {
    return processes("nvmlDeviceGetComputeRunningProcesses", "processes", handle, count, out);
}
API nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, process_info *out) {
    return nvmlDeviceGetComputeRunningProcesses_v3(handle, count, out);
}
API nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process_info *out) {
    return processes("nvmlDeviceGetGraphicsRunningProcesses", "graphics_processes", handle, count, out);
}
API nvmlDeviceGetGraphicsRunningProcesses_v2(void *handle, unsigned *count, process_info *out) {
    return nvmlDeviceGetGraphicsRunningProcesses_v3(handle, count, out);
}
API nvmlDeviceGetMPSComputeRunningProcesses_v3(void *handle, unsigned *count, process_info *out) {
    return processes("nvmlDeviceGetMPSComputeRunningProcesses", "mps_processes", handle, count, out);
}

/* --- MIG -------------------------------------------------------------------------------------------------------- */

API nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    DEVICE("nvmlDeviceGetMigMode");
    return put_mode(d->gpu, "mig_mode", "mig_mode_pending", current, pending);
}
API nvmlDeviceIsMigDeviceHandle(void *handle, unsigned *out) {
    DEVICE("nvmlDeviceIsMigDeviceHandle");
    if (!out) return INVALID_ARGUMENT;
    *out = d->mig != NULL;
    return OK;
}
API nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **out) {
    DEVICE("nvmlDeviceGetMigDeviceHandleByIndex");
    for (unsigned i = 0; i < mig_count; i++)
        if (migs[i].gpu == d->gpu && migs[i].index == index) return give(&migs[i], "nvmlDeviceGetMigDeviceHandleByIndex", out);
    return NOT_FOUND;
}
API nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *handle, void **out) {
    DEVICE("nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
    for (unsigned i = 0; d->mig && i < gpu_count; i++)
        if (gpus[i].gpu == d->gpu) return give(&gpus[i], "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", out);
    return INVALID_ARGUMENT;
}
API nvmlDeviceGetGpuInstanceId(void *handle, unsigned *out) {
    DEVICE("nvmlDeviceGetGpuInstanceId");
    return put_uint(d->mig, "gpu_instance", out);
}
API nvmlDeviceGetComputeInstanceId(void *handle, unsigned *out) {
    DEVICE("nvmlDeviceGetComputeInstanceId");
    return put_uint(d->mig, "compute_instance", out);
}
API nvmlDeviceGetAttributes_v2(void *handle, attributes *out) {
    DEVICE("nvmlDeviceGetAttributes");
    if (!d->mig) return NOT_SUPPORTED;
    if (!out) return INVALID_ARGUMENT;
    memset(out, 0, sizeof *out);
    out->multiprocessors = (unsigned)json_int(d->mig, "multiprocessors", 0);
    out->gpu_slices = (unsigned)json_int(d->mig, "slices", 0);
    out->compute_slices = out->gpu_slices;
    out->memory_mb = (unsigned long long)json_int(d->mig, "memory_total", 0) >> 20;
    return OK;
}

/* --- place in the host ------------------------------------------------------------------------------------------ */

API nvmlDeviceGetMemoryAffinity(void *handle, unsigned size, unsigned long *nodes, unsigned scope) {
    (void)scope;
    unsigned node;
    DEVICE("nvmlDeviceGetMemoryAffinity");
    int error = put_uint(d->gpu, "numa_node", &node);
    if (error) return error;
    if (!nodes || !size) return INVALID_ARGUMENT;
    if (node / 64 >= size) return INSUFFICIENT_SIZE;
    memset(nodes, 0, size * sizeof *nodes);
    nodes[node / 64] |= 1ul << node % 64;
    return OK;
}
/* 64 processors a node. */
static int processors(const char *call, void *handle, unsigned size, unsigned long *set) {
    unsigned node;
    DEVICE(call);
    int error = put_uint(d->gpu, "numa_node", &node);
    if (error) return error;
    if (!set || !size) return INVALID_ARGUMENT;
    if (node >= size) return INSUFFICIENT_SIZE;
    memset(set, 0, size * sizeof *set);
    set[node] = ~0ul;
    return OK;
}
API nvmlDeviceGetCpuAffinity(void *handle, unsigned size, unsigned long *set) {
    return processors("nvmlDeviceGetCpuAffinity", handle, size, set);
}
API nvmlDeviceGetCpuAffinityWithinScope(void *handle, unsigned size, unsigned long *set, unsigned scope) {
    (void)scope;
    return processors("nvmlDeviceGetCpuAffinityWithinScope", handle, size, set);
}
API nvmlDeviceGetAddressingMode(void *handle, unsigned *out) { /* version, value */
    DEVICE("nvmlDeviceGetAddressingMode");
    if (!out) return INVALID_ARGUMENT;
    return out[0] == 0x1000008 ? put_uint(d->gpu, "addressing_mode", &out[1]) : VERSION_MISMATCH;
}
API nvmlDeviceGetClockInfo(void *handle, unsigned clock, unsigned *out) {
    DEVICE("nvmlDeviceGetClockInfo");
    return clock < 4 ? put_uint(d->gpu, "clock_mhz", out) : INVALID_ARGUMENT;
}
API nvmlDeviceGetMaxClockInfo(void *handle, unsigned clock, unsigned *out) {
    DEVICE("nvmlDeviceGetMaxClockInfo");
    return clock < 4 ? put_uint(d->gpu, "clock_mhz", out) : INVALID_ARGUMENT;
}

/* --- links between GPUs ----------------------------------------------------------------------------------------- */

API nvmlDeviceGetNvLinkState(void *handle, unsigned link, unsigned *out) {
    DEVICE("nvmlDeviceGetNvLinkState");
    unsigned links;
    if (put_uint(d->gpu, "nvlinks", &links)) return NOT_SUPPORTED;
    if (link >= links || !out) return INVALID_ARGUMENT;
    *out = link < (unsigned)json_int(d->gpu, "nvlinks_up", links);
    return OK;
}
API nvmlDeviceGetNvLinkVersion(void *handle, unsigned link, unsigned *out) {
    (void)link;
    DEVICE("nvmlDeviceGetNvLinkVersion");
    return put_uint(d->gpu, "nvlink_version", out);
}
API nvmlDeviceGetNvLinkCapability(void *handle, unsigned link, unsigned capability, unsigned *out) {
    unsigned links;
    DEVICE("nvmlDeviceGetNvLinkCapability");
    if (put_uint(d->gpu, "nvlinks", &links)) return NOT_SUPPORTED;
    if (link >= links || capability > 6 || !out) return INVALID_ARGUMENT;
    *out = 1;
    return OK;
}
API nvmlDeviceGetNvLinkRemoteDeviceType(void *handle, unsigned link, unsigned *out) {
    (void)link;
    DEVICE("nvmlDeviceGetNvLinkRemoteDeviceType");
    if (!out) return INVALID_ARGUMENT;
    if (!json_get(d->gpu, "nvlinks")) return NOT_SUPPORTED;
    *out = 2; /* NVML_NVLINK_DEVICE_TYPE_SWITCH */
    return OK;
}
static int linked(const device *a, const device *b) {
    return json_int(a->gpu, "nvlinks_up", json_int(a->gpu, "nvlinks", 0)) > 0 &&
           json_int(b->gpu, "nvlinks_up", json_int(b->gpu, "nvlinks", 0)) > 0;
}
API nvmlDeviceGetP2PStatus(void *handle, void *other, unsigned capability, unsigned *out) {
    DEVICE("nvmlDeviceGetP2PStatus");
    int error = device_fault(other, "nvmlDeviceGetP2PStatus");
    if (error) return error;
    if (!out || capability > 5) return INVALID_ARGUMENT;
    *out = linked(d, other) ? 0 : (unsigned)json_int(d->gpu, "p2p_status", 5); /* OK, NOT_SUPPORTED */
    return OK;
}
API nvmlDeviceGetTopologyCommonAncestor(void *handle, void *other, unsigned *out) {
    DEVICE("nvmlDeviceGetTopologyCommonAncestor");
    int error = device_fault(other, "nvmlDeviceGetTopologyCommonAncestor");
    const device *second = other;
    if (error) return error;
    if (!out) return INVALID_ARGUMENT;
    int same = d->gpu == second->gpu;
    *out = same ? 0 : json_int(d->gpu, "numa_node", 0) == json_int(second->gpu, "numa_node", 0) ? 40 : 50;
    return OK;
}

static int fabric(const device *d, fabric_v *out) {
    const json *info = json_get(d->gpu, "fabric");
    if (!info || info->kind != JSON_OBJECT) return NOT_SUPPORTED;
    const char *cluster = json_string(info, "cluster");
    for (unsigned i = 0; i < 16; i++)
        out->cluster[i] = cluster && strlen(cluster) == 32 ? (unsigned char)hex_at(cluster + 2 * i, 2) : 0;
    out->status = (int)json_int(info, "status", OK);
    out->clique = (unsigned)json_int(info, "clique", 0);
    out->state = (unsigned char)json_int(info, "state", 0);
    out->health_mask = (unsigned)json_int(info, "health_mask", 0);
    return OK;
}
API nvmlDeviceGetGpuFabricInfo(void *handle, fabric_v1 *out) {
    DEVICE("nvmlDeviceGetGpuFabricInfo");
    fabric_v all = {0};
    int error = out ? fabric(d, &all) : INVALID_ARGUMENT;
    if (error) return error;
    memcpy(out->cluster, all.cluster, sizeof out->cluster);
    out->status = all.status;
    out->clique = all.clique;
    out->state = all.state;
    return OK;
}
API nvmlDeviceGetGpuFabricInfoV(void *handle, fabric_v *out) {
    DEVICE("nvmlDeviceGetGpuFabricInfo");
    if (!out) return INVALID_ARGUMENT;
    if (out->version != 0x2000024 && out->version != 0x3000028) return VERSION_MISMATCH;
    int error = fabric(d, out);
    if (!error && out->version == 0x3000028)
        out->health_summary = (unsigned char)json_int(json_get(d->gpu, "fabric"), "health_summary", 0);
    return error;
}
