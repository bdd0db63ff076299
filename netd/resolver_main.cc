// resolver_main.cc - netd-resolver: asks the system's resolver for one name, prints its addresses, ends. Started by the
// netd monitor only. Name resolution loads modules and opens what they like: that happens here, in a process that holds
// nothing and lives for a moment. Writes one numeric address a line to descriptor 3.
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "sandbox/sandbox.h"

int main(int argc, char** argv) {
  using namespace sallyport;
  if (argc != 2) {
    std::fprintf(stderr, "netd-resolver is started by netd; see netd(8)\n");
    return 2;
  }
  sandbox::Options options;
  options.profile = sandbox::Profile::NetdResolver;
  options.requirement = SandboxRequirement::Available;
  if (!sandbox::Sandbox(options).lockDown()) return 1;

  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  // Not AI_ADDRCONFIG: it hides ::1 on a host whose only IPv6 address is that one. The dialer tries one after the
  // other.
  addrinfo* results = nullptr;
  if (getaddrinfo(argv[1], nullptr, &hints, &results) != 0) return 1;
  std::string lines;
  for (const addrinfo* result = results; result != nullptr && lines.size() < 2048; result = result->ai_next) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    const void* address =
        result->ai_family == AF_INET
            ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(result->ai_addr)->sin_addr)
            : static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(result->ai_addr)->sin6_addr);
    if (inet_ntop(result->ai_family, address, text.data(), text.size()) != nullptr)
      lines += std::string(text.data()) + "\n";
  }
  freeaddrinfo(results);
  return write(3, lines.data(), lines.size()) == static_cast<ssize_t>(lines.size()) ? 0 : 1;
}
