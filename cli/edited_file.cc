// edited_file.cc - see edited_file.h.
#include "cli/edited_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;

auto problem(const fs::path& path, std::string_view what, int error) {
  return refuse(path.string() + ": " + std::string(what) + ": " + std::strerror(error));
}

bool writeAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

bool sameFile(const struct stat& left, const struct stat& right) {
  return left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

}  // namespace

Result<EditedFile, std::string> EditedFile::open(const fs::path& path, size_t maxBytes) {
  std::error_code failure;
  const auto real = fs::canonical(path, failure);
  if (failure) return refuse(path.string() + ": can't be read: " + failure.message());
  for (;;) {
    kj::AutoCloseFd fd(::open(real.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat ours {};
    struct stat current {};
    if (fd.get() < 0 || ::fstat(fd, &ours) != 0) return problem(path, "can't be read", errno);
    if (!S_ISREG(ours.st_mode)) return refuse(path.string() + ": is not a regular file");
    if (::flock(fd, LOCK_EX) != 0) return problem(path, "can't be locked", errno);
    // Who held the lock before us may have replaced the file: then we hold the lock of the old one.
    if (::stat(real.c_str(), &current) != 0) return problem(path, "can't be read", errno);
    if (!sameFile(ours, current)) continue;

    EditedFile file(real, kj::mv(fd));
    file.text_.resize(maxBytes + 1);
    size_t size = 0;
    ssize_t got = 0;
    while (size < file.text_.size() &&
           (got = ::read(file.fd_, file.text_.data() + size, file.text_.size() - size)) > 0) {
      size += static_cast<size_t>(got);
    }
    if (got < 0) return problem(path, "can't be read", errno);
    if (size > maxBytes) return refuse(path.string() + ": is larger than " + std::to_string(maxBytes) + " bytes");
    file.text_.resize(size);
    return file;
  }
}

Result<void, std::string> EditedFile::replace(std::string_view text) {
  struct stat old {};
  if (::fstat(fd_, &old) != 0) return problem(path_, "can't be read", errno);
  auto name = path_.string() + ".XXXXXX";
  kj::AutoCloseFd fd(::mkostemp(name.data(), O_CLOEXEC));
  if (fd.get() < 0) return problem(path_, "can't make a new file in its folder", errno);
  // The owner first: a change of owner may take mode bits away.
  const bool sameOwner =
      (old.st_uid == ::geteuid() && old.st_gid == ::getegid()) || ::fchown(fd, old.st_uid, old.st_gid) == 0;
  const bool done = sameOwner && ::fchmod(fd, old.st_mode & 07777) == 0 && writeAll(fd, text) && ::fsync(fd) == 0 &&
                    ::rename(name.c_str(), path_.c_str()) == 0;
  if (!done) {
    const int error = errno;
    ::unlink(name.c_str());
    return problem(path_, sameOwner ? "can't be replaced" : "can't keep its owner", error);
  }
  kj::AutoCloseFd folder(::open(path_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::fsync(folder) != 0) return problem(path_, "is replaced, but perhaps not durably", errno);
  return {};
}

}  // namespace sallyport::cli
