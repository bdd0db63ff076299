#include "vaultd/paired_blocks.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

constexpr size_t MAX_BYTES = 4 << 20;

Result<std::string, Problem> readAll(int fd, const fs::path& path) {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t got = ::pread(fd, buffer, sizeof buffer, static_cast<off_t>(text.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refuse(Problem{path.string() + ": can't read: " + std::strerror(errno), {}});
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > MAX_BYTES) return refuse(Problem{path.string() + " is longer than 4 MiB", {}});
  }
}

bool append(int fd, std::string_view text, size_t at) {
  while (!text.empty()) {
    const ssize_t written = ::pwrite(fd, text.data(), text.size(), static_cast<off_t>(at));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    at += static_cast<size_t>(written);
    text.remove_prefix(static_cast<size_t>(written));
  }
  return ::fsync(fd) == 0;
}

bool hasLine(std::string_view text, std::string_view line) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (text.substr(0, end) == line) return true;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return false;
}

bool isOfAKey(const std::vector<ListedKey>& keys, const PublicKey& fingerprint) {
  return std::ranges::any_of(keys, [&](const ListedKey& key) {
    if (!key.header) return false;
    const auto& versions = key.header->versions;
    return std::ranges::find(versions, fingerprint, &KeyVersion::publicKey) != versions.end();
  });
}

}  // namespace

Result<void, Problem> rememberBlock(const fs::path& folder, const PublicKey& fingerprint) {
  if (auto good = checkFolder(folder, true); !good) return refuse(good.error());
  const fs::path path = folder / "paired-blocks";
  bool missing = false;
  auto fd = openPrivate(path, O_RDWR, {}, &missing);
  if (!fd && missing) {
    Creation creation;
    fd = createPrivate(path, {}, &creation);
    if (!fd && creation.exists) fd = openPrivate(path, O_RDWR, {});
  }
  if (!fd) return refuse(fd.error());
  int locked;
  do { locked = ::flock(fd->get(), LOCK_EX); } while (locked != 0 && errno == EINTR);
  if (locked != 0) return refuse(Problem{path.string() + ": can't lock: " + std::strerror(errno), {}});
  const auto text = readAll(fd->get(), path);
  if (!text) return refuse(text.error());
  const auto keys = listKeys(folder);
  if (!keys) return refuse(keys.error());
  const std::string line = toBase64(fingerprint.span());
  if (hasLine(*text, line) || isOfAKey(*keys, fingerprint)) {
    return refuse(Problem{"the block " + line + " was taken before: a block is taken once",
                          "make a fresh one with `sallyport pair` on the other host"});
  }
  // A line that a crash has cut is no fingerprint, and nothing was done with its block.
  const bool cut = !text->empty() && text->back() != '\n';
  if (!append(fd->get(), (cut ? "\n" : "") + line + "\n", text->size()))
    return refuse(Problem{path.string() + ": can't write: " + std::strerror(errno), "nothing else was changed"});
  return {};
}

}  // namespace sallyport::vaultd
