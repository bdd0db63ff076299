// numeric_address.h - addresses that need no resolver. Part of: netd (monitor).
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>

#include <cstdint>

namespace sallyport::netd {

struct NumericAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// "192.0.2.1", "2001:db8::1"; nothing if it is a name.
std::optional<NumericAddress> parseNumeric(const std::string& host, uint16_t port);

}  // namespace sallyport::netd
