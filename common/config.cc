// config.cc - reading sallyport.toml, and the rules for addresses, names and keys. Part of: common (vaultd, netd's
// monitor and the CLI). The sections of the file are in config_parse.cc. What must never happen here: an exception or a
// crash by any text, a name that is not a safe file name, a public key that makes all its secrets zero.
#include "common/config.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <numeric>
#include <thread>

namespace sallyport {
namespace {

namespace fs = std::filesystem;

constexpr size_t MAX_NAME_BYTES = 64;
constexpr size_t MAX_HOST_BYTES = 253;

bool isAlnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// --- addresses -------------------------------------------------------------------------------------------------------

bool isIpv4(const std::string& host) {
  in_addr parsed;
  return inet_pton(AF_INET, host.c_str(), &parsed) == 1;
}

bool isIpv6(const std::string& host) {
  in6_addr parsed;
  return inet_pton(AF_INET6, host.substr(0, host.find('%')).c_str(), &parsed) == 1;
}

bool isHostName(std::string_view host) {
  if (host.empty() || host.size() > MAX_HOST_BYTES || host.front() == '-') return false;
  if (host.find("..") != host.npos || host.front() == '.') return false;
  return std::ranges::all_of(host, [](char c) { return isAlnum(c) || c == '-' || c == '.' || c == '_'; });
}

Unexpected<ConfigError> bad(std::string_view text, std::string_view problem, std::string_view hint) {
  const bool clean = std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
  return refuse(ConfigError{std::string(problem) + (clean ? ": `" + std::string(text.substr(0, 300)) + "`" : ""), 0,
                            std::string(hint)});
}

Result<Address, ConfigError> parseTcp(std::string_view text) {
  constexpr auto FORM = "write HOST:PORT, e.g. `127.0.0.1:8080` or `[::1]:8080`, or unix:PATH";
  const auto colon = text.rfind(':');
  if (colon == text.npos) return bad(text, "has no port", FORM);
  const auto digits = text.substr(colon + 1);
  std::string host(text.substr(0, colon));
  uint16_t port = 0;
  const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (fault != std::errc() || end != digits.data() + digits.size() || port == 0) {
    return bad(text, "has no usable port", "ports are 1 to 65535");
  }
  if (host.empty() || host == "*") {
    return bad(text, "has no host", "to listen on all addresses write `[::]:" + std::to_string(port) + "`");
  }
  if (host.front() == '[') {
    if (host.size() < 4 || host.back() != ']') return bad(text, "has a broken IPv6 host", FORM);
    host = host.substr(1, host.size() - 2);
    if (!isIpv6(host)) return bad(text, "has a broken IPv6 host", FORM);
    return Address(TcpAddress{host, port});
  }
  if (host.find(':') != host.npos) {
    return bad(text, "has more than one colon", "an IPv6 host stands in brackets, e.g. `[::1]:8080`");
  }
  const bool numeric = host.find_first_not_of("0123456789.") == host.npos;
  if (numeric ? !isIpv4(host) : !isHostName(host)) return bad(text, "has an unusable host", FORM);
  return Address(TcpAddress{host, port});
}

}  // namespace

Result<Address, ConfigError> parseAddress(std::string_view text, const fs::path& base) {
  if (!text.starts_with("unix:")) return parseTcp(text);
  const auto name = text.substr(5);
  if (name.starts_with('@')) {
    return bad(text, "is an abstract socket", "use a path: file permissions are what protects a Unix socket");
  }
  auto path = (base / fs::path(name)).lexically_normal();
  if (name.empty() || !path.has_filename()) return bad(text, "names no socket file", "write unix:PATH");
  if (path.native().size() > MAX_UNIX_PATH_BYTES) {
    return bad(text, "is too long for a Unix socket: " + path.string(), "at most 107 bytes, folder included");
  }
  return Address(UnixAddress{std::move(path)});
}

std::string toString(const Address& address) {
  if (const auto* local = std::get_if<UnixAddress>(&address)) return "unix:" + local->path.string();
  const auto& tcp = std::get<TcpAddress>(address);
  const auto port = ":" + std::to_string(tcp.port);
  return tcp.host.find(':') == std::string::npos ? tcp.host + port : "[" + tcp.host + "]" + port;
}

bool isLocal(const Address& address) {
  const auto* tcp = std::get_if<TcpAddress>(&address);
  if (tcp == nullptr || tcp->host == "localhost") return true;
  in_addr ipv4;
  if (inet_pton(AF_INET, tcp->host.c_str(), &ipv4) == 1) return ntohl(ipv4.s_addr) >> 24 == 127;
  in6_addr ipv6;
  return inet_pton(AF_INET6, tcp->host.c_str(), &ipv6) == 1 && IN6_IS_ADDR_LOOPBACK(&ipv6);
}

namespace {

// As it is bound: an IPv4 address as the IPv6 one that stands for it. Nothing if it is a name.
std::optional<in6_addr> boundAddress(const std::string& host) {
  in6_addr address;
  if (inet_pton(AF_INET6, host.c_str(), &address) == 1) return address;
  if (inet_pton(AF_INET6, ("::ffff:" + (host == "localhost" ? "127.0.0.1" : host)).c_str(), &address) == 1)
    return address;
  return std::nullopt;
}

bool takesPortOf(const in6_addr& wildcard, const in6_addr& other) {
  if (IN6_IS_ADDR_UNSPECIFIED(&wildcard)) return true;
  return IN6_IS_ADDR_V4MAPPED(&wildcard) && wildcard.s6_addr32[3] == 0 && IN6_IS_ADDR_V4MAPPED(&other);
}

}  // namespace

unsigned workerCount(const NetConfig& net) {
  const unsigned wanted = net.workers == 0 ? std::thread::hardware_concurrency() : net.workers;
  return std::clamp(wanted, 1u, MAX_WORKERS);
}

bool collide(const Address& one, const Address& other) {
  const auto* tcp = std::get_if<TcpAddress>(&one);
  const auto* otherTcp = std::get_if<TcpAddress>(&other);
  if (tcp == nullptr || otherTcp == nullptr) return toString(one) == toString(other);
  if (tcp->port != otherTcp->port) return false;
  if (tcp->host == otherTcp->host) return true;
  const auto bound = boundAddress(tcp->host);
  const auto otherBound = boundAddress(otherTcp->host);
  if (!bound || !otherBound) return false;
  return IN6_ARE_ADDR_EQUAL(&*bound, &*otherBound) || takesPortOf(*bound, *otherBound) ||
         takesPortOf(*otherBound, *bound);
}

// --- names and keys --------------------------------------------------------------------------------------------------

bool isNonceDomain(std::string_view text) {
  return isName(text) && text.size() <= 8 && !text.starts_with("CurveCP") && text != "SallyBox";
}

std::string_view name(Verb verb) {
  switch (verb) {
    case Verb::Box: return "box";
    case Verb::Open: return "open";
    case Verb::Sign: return "sign";
    case Verb::FreshNonce: return "fresh_nonce";
  }
  return "unknown";
}

bool isName(std::string_view text) {
  return !text.empty() && text.size() <= MAX_NAME_BYTES && isAlnum(text.front()) &&
         std::ranges::all_of(text, [](char c) { return isAlnum(c) || c == '_' || c == '.' || c == '-'; });
}

Result<PublicKey, std::string> parsePublicKey(std::string_view base64) {
  const auto bytes = fromBase64(base64);
  if (!bytes) return refuse(std::string("the key is not base64"));
  const auto key = PublicKey::tryFrom(*bytes);
  if (!key) return refuse("the key has " + std::to_string(bytes->size()) + " bytes, not 32");
  // Each key has one spelling, so that comparing bytes compares keys: below 2^255 - 19.
  const auto* k = key->data();
  const bool filled = std::all_of(k + 1, k + 31, [](unsigned char byte) { return byte == 0xff; });
  if (k[31] > 0x7f || (k[31] == 0x7f && filled && k[0] >= 0xed)) {
    return refuse(std::string("the key is not an X25519 public key"));
  }
  // Any scalar will do: a low-order point gives zero, and -1, with every one of them.
  std::array<unsigned char, crypto_scalarmult_SCALARBYTES> scalar{8};
  std::array<unsigned char, crypto_scalarmult_BYTES> shared;
  if (crypto_scalarmult(shared.data(), scalar.data(), k) != 0) {
    return refuse(std::string("the key is a low-order point, which gives no secrecy"));
  }
  return *key;
}

Result<SigningKey, std::string> parseSigningKey(std::string_view base64) {
  const auto bytes = fromBase64(base64);
  if (!bytes) return refuse(std::string("the key is not base64"));
  const auto key = SigningKey::tryFrom(*bytes);
  if (!key) return refuse("the key has " + std::to_string(bytes->size()) + " bytes, not 32");
  if (crypto_core_ed25519_is_valid_point(key->data()) != 1) {
    return refuse(std::string("the key is not an Ed25519 public key"));
  }
  return *key;
}

std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates) {
  if (word.size() > MAX_NAME_BYTES) return {};
  std::string_view best;
  size_t bestDistance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const auto candidate : candidates) {
    // Levenshtein's distance, one row at a time.
    std::vector<size_t> row(candidate.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = std::exchange(row[0], i);
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const size_t change = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = std::exchange(row[j], std::min({change, row[j] + 1, row[j - 1] + 1}));
      }
    }
    if (row.back() < bestDistance) {
      best = candidate;
      bestDistance = row.back();
    }
  }
  return best;
}

// --- the file --------------------------------------------------------------------------------------------------------

const ListenEntry* Config::findListen(std::string_view name) const {
  const auto found = std::ranges::find(listens, name, &ListenEntry::name);
  return found == listens.end() ? nullptr : &*found;
}

const ConnectEntry* Config::findConnect(std::string_view name) const {
  const auto found = std::ranges::find(connects, name, &ConnectEntry::name);
  return found == connects.end() ? nullptr : &*found;
}

Result<std::string, ConfigError> readConfigText(const fs::path& file) {
  if (file.empty()) {
    return refuse(ConfigError{"no configuration: there is no sallyport.toml here and no /etc/sallyport/sallyport.toml",
                              0, "name one with -c FILE"});
  }
  const auto failed = [](int error) {
    std::string hint;
    if (error == EACCES) hint = "run this as a user who may read it, e.g. by sudo";
    if (error == ENOENT) hint = "write one, or name another with -c FILE: sallyport.toml(5) has an example";
    return refuse(ConfigError{std::string("can't be read: ") + std::strerror(error), 0, std::move(hint)});
  };
  // O_NONBLOCK: a FIFO is refused below instead of waited for.
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return failed(errno);
  std::string text(MAX_CONFIG_BYTES + 1, '\0');
  size_t size = 0;
  ssize_t got = 0;
  struct stat status;
  const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  if (regular) {
    while (size < text.size() && (got = ::read(fd, text.data() + size, text.size() - size)) > 0)
      size += static_cast<size_t>(got);
  }
  const int error = got < 0 ? errno : 0;
  ::close(fd);
  if (!regular) return refuse(ConfigError{"is not a regular file", 0, "name the file itself with -c FILE"});
  if (error != 0) return failed(error);
  text.resize(size);
  return text;
}

Result<Config, ConfigError> loadConfig(const fs::path& file) {
  auto text = readConfigText(file);
  if (!text) return refuse(text.error());
  auto config = parseConfig(*text, file);
  struct stat status;
  if (config && ::stat(file.c_str(), &status) == 0 && (status.st_mode & S_IWOTH) != 0) {
    config->warnings.push_back(file.string() + " can be changed by anyone: chmod o-w " + file.string());
  }
  return config;
}

std::vector<ConfigError> eachOf(const ConfigError& error) {
  std::vector<ConfigError> all{{error.message, error.line, error.hint}};
  all.insert(all.end(), error.further.begin(), error.further.end());
  return all;
}

std::string format(const ConfigError& error, const fs::path& file) {
  if (file.empty()) return error.message;
  return file.string() + (error.line == 0 ? "" : ":" + std::to_string(error.line)) + ": " + error.message;
}

fs::path findConfigFile(const fs::path& given) {
  if (!given.empty()) return given;
  for (const auto* candidate : {"sallyport.toml", "/etc/sallyport/sallyport.toml"}) {
    if (::access(candidate, F_OK) == 0) return candidate;
  }
  return {};
}

}  // namespace sallyport
