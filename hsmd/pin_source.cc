// pin_source.cc - see pin_source.h. Part of: hsmd.
#include "hsmd/pin_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "common/match.h"
#include "common/secret_bytes.h"

namespace sallyport::hsmd {

namespace {

// A newline at the end, and one byte more than can be: what is too long shows.
constexpr size_t READ_BYTES = hsm::MAX_PIN_BYTES + 3;

std::string readPin(int fd, PinRecord& record) {
  struct TextTag;
  SecretBytes<TextTag, READ_BYTES> text;
  size_t have = 0;
  while (have < READ_BYTES) {
    const ssize_t got = read(fd, text.exposeMutable().data() + have, READ_BYTES - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::strerror(errno);
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  ByteSpan pin = ByteSpan(text.expose()).first(have);
  if (!pin.empty() && pin.back() == std::byte{'\n'}) pin = pin.first(pin.size() - 1);
  if (!pin.empty() && pin.back() == std::byte{'\r'}) pin = pin.first(pin.size() - 1);
  if (pin.empty()) return "it is empty";
  if (!record.give(pin)) return "it is longer than 64 bytes";
  return "";
}

// `owner`: the only one besides root whose file it may be. None for systemd's, which have access lists of their own.
std::string readFile(const std::filesystem::path& path, const uid_t* owner, PinRecord& record) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return path.string() + ": " + (errno == ELOOP ? "it is a symbolic link" : std::strerror(errno));
  struct stat status {};
  std::string problem;
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    problem = "it is no regular file";
  } else if (owner != nullptr && (status.st_mode & 0177) != 0) {
    problem = "others may read it, or it may be run: chmod 0400 it";
  } else if (owner != nullptr && status.st_uid != 0 && status.st_uid != *owner) {
    problem = "it belongs neither to root nor to the token's user: chown it to root";
  } else {
    problem = readPin(fd, record);
  }
  close(fd);
  return problem.empty() ? "" : path.string() + ": " + problem;
}

std::string fetch(const PinSource& source, uid_t user, PinRecord& record) {
  return std::visit(Match{[](const PinAsk&) { return std::string(); },
                          [&](const PinFile& file) { return readFile(file.path, &user, record); },
                          [&](const PinCredential& credential) {
                            const char* folder = std::getenv("CREDENTIALS_DIRECTORY");
                            if (folder == nullptr)
                              return std::string("there is no CREDENTIALS_DIRECTORY: not started by systemd");
                            return readFile(std::filesystem::path(folder) / credential.name, nullptr, record);
                          },
                          [&](const PinDescriptor& descriptor) {
                            const std::string problem = readPin(descriptor.fd, record);
                            close(descriptor.fd);
                            return problem.empty() ? ""
                                                   : "descriptor " + std::to_string(descriptor.fd) + ": " + problem;
                          }},
                    source);
}

}  // namespace

std::string fetchPin(const PinSource& source, uid_t user, PinRecord& record) {
  record.forget(PinState::Missing);
  std::string problem = fetch(source, user, record);
  // The reason stands behind the path: of what is too long the end is kept.
  if (problem.size() > record.why.size()) problem.replace(0, problem.size() - record.why.size() + 3, "...");
  record.explain(problem);
  return problem;
}

}  // namespace sallyport::hsmd
