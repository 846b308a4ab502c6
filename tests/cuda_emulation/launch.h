// Calls a kernel with the arguments of a launch. Included after the kernel's source.
#pragma once
#include <stddef.h>

#include <tuple>
#include <type_traits>
#include <utility>

namespace onebit_emulation {

template <class T>
constexpr char kind() {
    return std::is_pointer_v<T> ? 'p' : std::is_same_v<T, float> ? 'f' : std::is_integral_v<T> && sizeof(T) == 4 ? 'i' : 's';
}

// One letter and the size of each parameter, so that the device can check what it is given: "p8 i4 s128".
template <class... Parameters>
void describe(void (*)(Parameters...), void (*add)(char kind, size_t size)) {
    (add(kind<Parameters>(), sizeof(Parameters)), ...);
}

// Not checked: the arguments lie in memory of the device. `kernel` is volatile so that nothing is inlined here.
template <class... Parameters, size_t... I>
__attribute__((no_sanitize("thread"))) void call(void (*volatile kernel)(Parameters...), void** args,
                                                 std::index_sequence<I...>) {
    kernel(*static_cast<const std::remove_const_t<Parameters>*>(args[I])...);
}
template <class... Parameters>
void call(void (*kernel)(Parameters...), void** args) {
    call(kernel, args, std::index_sequence_for<Parameters...>());
}

}  // namespace onebit_emulation
