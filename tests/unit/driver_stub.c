/* A libcuda.so.1 that does nothing and prints what it was asked for: the calls that runtime/cuda/device/driver.py
 * makes, with their arguments as they arrive. Everything else fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int sizes[16], count; /* of the parameters of the next launch */

void stub_expect(int n, const int *bytes) {
    memcpy(sizes, bytes, sizeof(int) * n);
    count = n;
}
int cuInit(unsigned flags) {
    return flags;
}
int cuDriverGetVersion(int *version) {
    *version = 13000;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(intptr_t)(0x100 + device);
    return 0;
}
int cuCtxGetCurrent(void **context) {
    *context = NULL;
    return 0;
}
int cuCtxPushCurrent_v2(void *context) {
    printf("push %p\n", context);
    return 0;
}
int cuCtxPopCurrent_v2(void **context) {
    *context = NULL;
    printf("pop\n");
    return 0;
}
int cuLibraryLoadData(void **library, const char *code, void *a, void *b, unsigned options, void *c, void *d,
                      unsigned library_options) {
    printf("load %.4s, %u and %u options\n", code + 1, options, library_options);
    *library = (void *)0x200;
    return 0;
}
int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
    printf("kernel %s of %p\n", name, library);
    *kernel = (void *)0x300;
    return 0;
}
int cuKernelSetAttribute(int attribute, int value, void *kernel, int device) {
    printf("attribute %d = %d of %p on %d\n", attribute, value, kernel, device);
    return 0;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, uint8_t **parameters, void **extra) {
    printf("launch %p grid %u %u %u block %u %u %u shared %u stream %p extra %d\n", function, x, y, z, bx, by,
           bz, shared, stream, extra != NULL);
    for (int i = 0; i < count; i++) {
        for (int byte = 0; byte < sizes[i]; byte++)
            printf("%02x", parameters[i][byte]);
        printf("\n");
    }
    return 0;
}
int cuTensorMapEncodeTiled(uint8_t *map, int type, unsigned rank, void *address, const uint64_t *sizes,
                           const uint64_t *strides, const unsigned *box, const unsigned *steps,
                           int interleave, int swizzle, int promotion, int outside) {
    printf("map at %% 64 = %d type %d rank %u size %lu %lu stride %lu box %u %u step %u %u interleave %d "
           "swizzle %d promotion %d outside %d\n",
           (int)((uintptr_t)map % 64), type, rank, (unsigned long)sizes[0], (unsigned long)sizes[1],
           (unsigned long)strides[0], box[0], box[1], steps[0], steps[1], interleave, swizzle, promotion,
           outside);
    memcpy(map, &address, 8);
    memset(map + 8, 0xAB, 120);
    return 0;
}
static int unsupported(void) {
    return 801;
}
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    char newer[128];
    void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    snprintf(newer, sizeof newer, "%s_v2", name);
    *function = dlsym(self, newer);
    if (*function == NULL)
        *function = dlsym(self, name);
    if (*function == NULL)
        *function = (void *)unsupported;
    if (status != NULL)
        *status = 0;
    return 0;
}
int cuGetExportTable(const void **table, const void *id) {
    *table = NULL;
    return unsupported();
}
