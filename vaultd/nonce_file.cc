#include "vaultd/nonce_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "vaultd/state_file.h"

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

constexpr const char* AWAY =
    "move it away: the next start makes a new nonce file, under a fresh nonce key, which is safe";

uint64_t wallSeconds() {
  const std::time_t now = std::time(nullptr);
  return now < 0 ? 0 : static_cast<uint64_t>(now);
}

NonceFacts factsOf(int fd, const LedgerId& id) { return {stateHash("sallyport key id", id.span()), placeOfFile(fd)}; }

// Runs on the temporary file: when its name appears it is locked, allocated, whole and durable.
bool fill(int fd, const LedgerId& id) {
  if (!lockFile(fd) || !allocateFile(fd, NonceLedger::FILE_BYTES)) return false;
  const NonceLedger::Image image = NonceLedger::newImage(factsOf(fd, id), wallSeconds());
  const ssize_t written = ::pwrite(fd, image.data(), image.size(), 0);
  if (written != static_cast<ssize_t>(image.size())) {
    if (written >= 0) errno = ENOSPC;
    return false;
  }
  return ::fsync(fd) == 0;
}

Problem inFile(const fs::path& path, const Problem& problem) {
  return {path.string() + ": " + problem.message, problem.hint};
}

// As the vault opens it; `missing` as in openPrivate().
Result<kj::AutoCloseFd, Problem> openState(const fs::path& path, const FileOwners& owners, bool& missing) {
  auto fd = openPrivate(path, O_RDWR, owners, &missing);
  std::error_code failure;
  const auto status = fs::symlink_status(path, failure);
  if (!fd && fs::exists(status) && !fs::is_regular_file(status)) return refuse(Problem{fd.error().message, AWAY});
  return fd;
}

NonceFileProblem inUse(const fs::path& path) {
  return {NonceFileProblem::Kind::InUse,
          {path.string() + " is in use: another vaultd runs with this key",
           "stop it first, or give this one keys of its own"}};
}

}  // namespace

Result<std::unique_ptr<NonceLedger>, NonceFileProblem> openNonceFile(const fs::path& path, const LedgerId& id,
                                                                     const FileOwners& owners) {
  bool missing = false;
  auto fd = openState(path, owners, missing);
  if (!fd && missing) {
    Creation creation;
    creation.prepare = [&](int newFd) { return fill(newFd, id); };
    fd = createPrivate(path, {}, &creation);
    if (!fd && creation.exists) return refuse(inUse(path));  // another vaultd has just made it
    if (!fd) return NonceLedger::unusable(fd.error().message);
  }
  if (!fd) return refuse(NonceFileProblem{NonceFileProblem::Kind::Unusable, fd.error()});
  // A file that we have just made is locked through the same descriptor already: locking again changes nothing.
  if (!lockFile(fd->get())) {
    if (errno == EAGAIN || errno == EACCES) return refuse(inUse(path));
    return refuse(NonceFileProblem{NonceFileProblem::Kind::Unusable,
                                   {path.string() + ": can't lock: " + std::strerror(errno), {}}});
  }
  const NonceFacts facts = factsOf(fd->get(), id);
  auto ledger = NonceLedger::open(diskOf(kj::mv(*fd)), facts, wallSeconds);
  if (!ledger) return refuse(NonceFileProblem{NonceFileProblem::Kind::Unusable, inFile(path, ledger.error())});
  return kj::mv(*ledger);
}

Result<void, Problem> inspectNonceFile(const fs::path& path, const FileOwners& owners) {
  bool missing = false;
  auto fd = openState(path, owners, missing);
  if (!fd && missing) return {};
  if (!fd) return refuse(fd.error());
  auto good = NonceLedger::inspect(*diskOf(kj::mv(*fd)));
  if (!good) return refuse(inFile(path, good.error()));
  return {};
}

}  // namespace sallyport::vaultd
