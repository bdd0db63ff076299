// origin.h - where an accepted connection comes from: an address of the network, or a user of this host. Part of: netd.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <string>
#include <variant>

namespace sallyport::netd {

struct LocalUser {
  uid_t uid;
};
using Origin = std::variant<LocalUser, sockaddr_in, sockaddr_in6>;

// Who had the other end of a Unix socket when it connected: OVERFLOW_ID if the kernel can't name him in the user
// namespace of this process.
LocalUser localUser(int socket);
// Of a socket that was accepted just now; `address` is what accept4() told.
Origin originOf(int socket, const sockaddr_storage& address);
// A user of the host whom this process can't name; the monitor may.
bool isUnnamed(const Origin& origin);
// "192.0.2.1:40000", "[2001:db8::1]:40000", "unix:uid=1000"; "unix" for users whom the kernel can't name.
std::string printable(const Origin& origin);

}  // namespace sallyport::netd
