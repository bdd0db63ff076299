// origin.cc - see origin.h.
#include "netd/origin.h"

#include <arpa/inet.h>

#include <array>

#include "common/config.h"
#include "common/match.h"

namespace sallyport::netd {

LocalUser localUser(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return {OVERFLOW_ID};
  return {credentials.uid};
}

Origin originOf(int socket, const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) return reinterpret_cast<const sockaddr_in&>(address);
  if (address.ss_family == AF_INET6) return reinterpret_cast<const sockaddr_in6&>(address);
  return localUser(socket);
}

bool isUnnamed(const Origin& origin) {
  const auto* user = std::get_if<LocalUser>(&origin);
  return user != nullptr && user->uid == OVERFLOW_ID;
}

std::string printable(const Origin& origin) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  return std::visit(Match{
                        [](const LocalUser& user) -> std::string {
                          return user.uid == OVERFLOW_ID ? "unix" : "unix:uid=" + std::to_string(user.uid);
                        },
                        [&](const sockaddr_in& v4) {
                          inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
                          return std::string(text.data()) + ":" + std::to_string(ntohs(v4.sin_port));
                        },
                        [&](const sockaddr_in6& v6) {
                          inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
                          return "[" + std::string(text.data()) + "]:" + std::to_string(ntohs(v6.sin6_port));
                        },
                    },
                    origin);
}

}  // namespace sallyport::netd
