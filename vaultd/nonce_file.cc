#include "vaultd/nonce_file.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

class NonceFile final : public NonceDisk {
 public:
  explicit NonceFile(kj::AutoCloseFd fd) : fd_(kj::mv(fd)) {}
  ~NonceFile() noexcept override {}  // closing throws in KJ; at the end of the process there is nobody to catch it

  ssize_t read(size_t offset, MutableByteSpan bytes) override {
    const ssize_t got = ::pread(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    return got < 0 ? -errno : got;
  }
  ssize_t write(size_t offset, ByteSpan bytes) override {
    const ssize_t written = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    return written < 0 ? -errno : written;
  }
  int sync() override { return ::fdatasync(fd_.get()) == 0 ? 0 : -errno; }

 private:
  kj::AutoCloseFd fd_;
};

uint64_t wallSeconds() {
  const std::time_t now = std::time(nullptr);
  return now < 0 ? 0 : static_cast<uint64_t>(now);
}

std::array<std::byte, 16> hash16(std::string_view domain, ByteSpan content) {
  std::array<std::byte, 16> result;
  CHECK(crypto_generichash_blake2b(reinterpret_cast<unsigned char*>(result.data()), result.size(), uchars(content),
                                   content.size(), reinterpret_cast<const unsigned char*>(domain.data()),
                                   domain.size()) == 0);
  return result;
}

// Changes when the file is copied, restored from a backup, or carried to another machine: machine id, inode number, and
// where the file system knows it the time of the file's birth (inode numbers are used again).
std::array<std::byte, 16> placeOf(int fd) {
  std::string place;
  std::ifstream("/etc/machine-id") >> place;
  struct statx status;
  CHECK(::statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &status) == 0);
  place += " " + std::to_string(status.stx_ino);
  if ((status.stx_mask & STATX_BTIME) != 0) {
    place += " " + std::to_string(status.stx_btime.tv_sec) + "." + std::to_string(status.stx_btime.tv_nsec);
  }
  return hash16("sallyport place", asBytes(place));
}

NonceFacts factsOf(int fd, const LedgerId& id) { return {hash16("sallyport key id", id.span()), placeOf(fd)}; }

bool lock(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

// Runs on the temporary file: when its name appears it is locked, allocated, whole and durable.
bool fill(int fd, const LedgerId& id) {
  if (!lock(fd)) return false;
  // Allocated now, so that a later write in place doesn't meet a full disk.
  if (const int error = ::posix_fallocate(fd, 0, NonceLedger::FILE_BYTES);
      error != 0 && error != EOPNOTSUPP && error != EINVAL) {
    errno = error;
    return false;
  }
  const NonceLedger::Image image = NonceLedger::newImage(factsOf(fd, id), wallSeconds());
  const ssize_t written = ::pwrite(fd, image.data(), image.size(), 0);
  if (written != static_cast<ssize_t>(image.size())) {
    if (written >= 0) errno = ENOSPC;
    return false;
  }
  return ::fsync(fd) == 0;
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
  auto fd = openPrivate(path, O_RDWR, owners, &missing);
  if (!fd && missing) {
    Creation creation;
    creation.prepare = [&](int newFd) { return fill(newFd, id); };
    fd = createPrivate(path, {}, &creation);
    if (!fd && creation.exists) return refuse(inUse(path));  // another vaultd has just made it
    if (!fd) return NonceLedger::unusable(fd.error().message);
  }
  if (!fd) return refuse(NonceFileProblem{NonceFileProblem::Kind::Unusable, fd.error()});
  // A file that we have just made is locked through the same descriptor already: locking again changes nothing.
  if (!lock(fd->get())) {
    if (errno == EAGAIN || errno == EACCES) return refuse(inUse(path));
    return refuse(NonceFileProblem{NonceFileProblem::Kind::Unusable,
                                   {path.string() + ": can't lock: " + std::strerror(errno), {}}});
  }
  const NonceFacts facts = factsOf(fd->get(), id);
  auto ledger = NonceLedger::open(std::make_unique<NonceFile>(kj::mv(*fd)), facts, wallSeconds);
  if (!ledger) {
    return refuse(NonceFileProblem{NonceFileProblem::Kind::Unusable,
                                   {path.string() + ": " + ledger.error().message, ledger.error().hint}});
  }
  return kj::mv(*ledger);
}

}  // namespace sallyport::vaultd
