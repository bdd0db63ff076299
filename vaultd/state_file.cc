#include "vaultd/state_file.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

namespace sallyport::vaultd {

namespace {

class StateFile final : public NonceDisk {
 public:
  explicit StateFile(kj::AutoCloseFd fd) : fd_(kj::mv(fd)) {}
  ~StateFile() noexcept override {}  // closing throws in KJ; at the end of the process there is nobody to catch it

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

}  // namespace

std::unique_ptr<NonceDisk> diskOf(kj::AutoCloseFd fd) { return std::make_unique<StateFile>(kj::mv(fd)); }

std::array<std::byte, 16> stateHash(std::string_view domain, ByteSpan content) {
  std::array<std::byte, 16> result;
  CHECK(crypto_generichash_blake2b(reinterpret_cast<unsigned char*>(result.data()), result.size(), uchars(content),
                                   content.size(), reinterpret_cast<const unsigned char*>(domain.data()),
                                   domain.size()) == 0);
  return result;
}

std::array<std::byte, 16> placeOfFile(int fd) {
  std::string place;
  std::ifstream("/etc/machine-id") >> place;
  struct statx status;
  CHECK(::statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &status) == 0);
  place += " " + std::to_string(status.stx_ino);
  if ((status.stx_mask & STATX_BTIME) != 0) {
    place += " " + std::to_string(status.stx_btime.tv_sec) + "." + std::to_string(status.stx_btime.tv_nsec);
  }
  return stateHash("sallyport place", asBytes(place));
}

bool lockFile(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

bool allocateFile(int fd, size_t bytes) {
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (error == 0 || error == EOPNOTSUPP || error == EINVAL) return true;
  errno = error;
  return false;
}

}  // namespace sallyport::vaultd
