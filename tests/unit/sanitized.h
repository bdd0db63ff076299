// sanitized.h - whether this is a build with AddressSanitizer, whose runtime maps terabytes of shadow and makes system
// calls of its own. Part of: tests/unit.
#pragma once

namespace sallyport::test {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool SANITIZED = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool SANITIZED = true;
#else
inline constexpr bool SANITIZED = false;
#endif
#else
inline constexpr bool SANITIZED = false;
#endif

}  // namespace sallyport::test
