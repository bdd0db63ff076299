// c_guard.h - what the C functions have in common. Part of: libsallyport (the caller's process).
// No exception leaves a C function: each is one call of guarded().
#pragma once

#include <cstring>
#include <exception>
#include <new>

#include "clients/cpp/include/sallyport/vault.h"

namespace sallyport::client::c_abi {

// Keeps this thread's last failure, and gives the code back.
int failed(Code code, const char* text) noexcept;
inline int failed(Code code) noexcept { return failed(code, describe(code)); }
const char* lastError() noexcept;

template <typename Step>
int guarded(Step&& step) noexcept {
  try {
    step();
    return static_cast<int>(Code::ok);
  } catch (const Error& error) { return failed(error.code(), error.what()); } catch (const std::bad_alloc&) {
    return failed(Code::outOfMemory);
  } catch (const std::exception& error) { return failed(Code::vaultFailed, error.what()); }
}

inline void require(bool condition) {
  if (!condition) throw Error(Code::badArgument);
}

inline View viewOf(const void* bytes, size_t size) { return std::span(static_cast<const std::byte*>(bytes), size); }
inline bool readable(const void* bytes, size_t size) { return bytes != nullptr || size == 0; }
inline void copyOut(void* to, std::span<const std::byte> bytes) {
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
}

}  // namespace sallyport::client::c_abi
