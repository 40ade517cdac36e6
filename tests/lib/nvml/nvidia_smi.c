/* A stand-in for nvidia-smi over the NVML double: `nvidia-smi`, `nvidia-smi -L`. Exit codes as the original's: the NVML error. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *library;

static int call(const char *name, void *a, void *b, void *c) {
    int (*function)(void *, void *, void *) = (int (*)(void *, void *, void *))dlsym(library, name);
    return function ? function(a, b, c) : 13;
}

static int fail(int error) {
    if (error == 9)
        printf("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
               "NVIDIA driver is installed and running.\n");
    else {
        const char *(*text)(int) = (const char *(*)(int))dlsym(library, "nvmlErrorString");
        printf("Failed to initialize NVML: %s\n", text ? text(error) : "Unknown Error");
    }
    return error;
}

static void print_head(const char *driver, int cuda) {
    char version[16];
    snprintf(version, sizeof version, "%d.%d", cuda / 1000, cuda % 1000 / 10);
    printf("+-----------------------------------------------------------------------------------------+\n"
           "| NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %-8s |\n"
           "+-----------------------------------------------------------------------------------------+\n",
           driver, driver, version);
}

int main(int argc, char **argv) {
    int list = argc > 1 && strcmp(argv[1], "-L") == 0, error, cuda = 0;
    unsigned count = 0;
    char driver[80] = "";
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library) {
        printf("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n");
        return 12;
    }
    if ((error = call("nvmlInit_v2", 0, 0, 0))) return fail(error);
    call("nvmlSystemGetDriverVersion", driver, (void *)sizeof driver, 0);
    call("nvmlSystemGetCudaDriverVersion_v2", &cuda, 0, 0);
    if ((error = call("nvmlDeviceGetCount_v2", &count, 0, 0))) return fail(error);
    if (!list) print_head(driver, cuda);
    if (!count) return printf("No devices were found\n"), 6;
    for (size_t i = 0; i < count; i++) {
        void *gpu = NULL;
        char name[96] = "", uuid[96] = "";
        unsigned long long memory[3] = {0};
        error = call("nvmlDeviceGetHandleByIndex_v2", (void *)i, &gpu, 0);
        if (!error) error = call("nvmlDeviceGetName", gpu, name, (void *)sizeof name);
        if (error) {
            printf("Unable to determine the device handle for GPU%zu: error %d\n", i, error);
            continue;
        }
        call("nvmlDeviceGetUUID", gpu, uuid, (void *)sizeof uuid);
        call("nvmlDeviceGetMemoryInfo", gpu, memory, 0);
        if (list) printf("GPU %zu: %s (UUID: %s)\n", i, name, uuid);
        else printf("| %3zu  %-40s %8lluMiB / %8lluMiB %14s |\n", i, name, memory[2] >> 20, memory[0] >> 20, "");
    }
    if (!list) printf("+-----------------------------------------------------------------------------------------+\n");
    return 0;
}
