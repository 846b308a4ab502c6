// The table of a source's kernels, and how each is called. Included after the source. (No std::string and the
// like: their functions, compiled here with instrumentation, would be the emulator's too.)
#pragma once
#include <stddef.h>

#include <type_traits>
#include <utility>

namespace onebit_emulation {

template <class T> constexpr char kind() {
    if (std::is_pointer_v<T>)
        return 'p';
    if (std::is_same_v<T, float>)
        return 'f';
    return std::is_integral_v<T> && sizeof(T) == 4 ? 'i' : 's';
}

// Kind (p pointer, i 32-bit integer, f float, s other) << 16 | size, of each parameter; then 0.
template <class... Parameters> const int *describe(void (*)(Parameters...)) {
    static const int numbers[] = {(kind<Parameters>() << 16 | static_cast<int>(sizeof(Parameters)))..., 0};
    return numbers;
}

// Not checked: the arguments lie in memory of the device. `kernel` is volatile so that nothing is inlined
// here.
template <class... Parameters, size_t... I>
__attribute__((no_sanitize("thread"))) void call(void (*volatile kernel)(Parameters...), void **args,
                                                 std::index_sequence<I...>) {
    kernel(*static_cast<const std::remove_const_t<Parameters> *>(args[I])...);
}
template <class... Parameters> void call(void (*kernel)(Parameters...), void **args) {
    call(kernel, args, std::index_sequence_for<Parameters...>());
}

constexpr Dim3 cluster_shape(unsigned x = 1, unsigned y = 1, unsigned z = 1) {
    return {x, y, z};
}

template <auto kernel> void body(void **args) {
    call(kernel, args);
}

template <auto kernel> Kernel entry(const char *name, Dim3 cluster) {
    return {name, &body<kernel>, describe(kernel), cluster};
}

} // namespace onebit_emulation
