#include "vaultd/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

std::string octal(mode_t mode) {
  char text[8];
  std::snprintf(text, sizeof text, "%04o", static_cast<unsigned>(mode & 07777));
  return text;
}

Problem systemProblem(const fs::path& path, const char* what, int error) {
  Problem problem{path.string() + ": " + what + ": " + std::strerror(error), {}};
  if (error == EACCES || error == EPERM)
    problem.hint = "run as the user who owns it, or give it to this user with chown";
  if (error == ENOSPC || error == EDQUOT) problem.hint = "make room on that file system, then try again";
  if (error == EROFS) problem.hint = "the file system is mounted read-only: put the keys folder on a writable one";
  return problem;
}

// What stands where a file is wanted.
Problem notAFile(const fs::path& path, mode_t mode) {
  const char* what = S_ISDIR(mode)    ? "is a folder"
                     : S_ISFIFO(mode) ? "is a FIFO"
                     : S_ISSOCK(mode) ? "is a socket"
                     : S_ISLNK(mode)  ? "is a symbolic link"
                                      : "is a device";
  return {path.string() + " " + what + ", not a file", "move it away, and put the file itself there"};
}

fs::path folderOf(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

bool writeAll(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    if (written == 0) {
      errno = ENOSPC;
      return false;
    }
    content.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// Hidden, so that a leftover after a crash is never taken for a key; random, so that it never stands in anybody's way.
fs::path temporaryFor(const fs::path& path) {
  std::array<std::byte, 8> random;
  fillRandom(random);
  return folderOf(path) / ("." + path.filename().string() + ".tmp-" + toHex(random));
}

Result<kj::AutoCloseFd, Problem> writeTemporary(const fs::path& temporary, std::string_view content) {
  const int fd = ::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) {
    const int error = errno;
    // The file has a name of ours: what an operator can mend is its folder.
    const fs::path folder = folderOf(temporary);
    Problem problem = systemProblem(folder, "can't create a file in this folder", error);
    if (error == EACCES || error == EPERM) {
      problem.hint = "run this as the owner of " + folder.string() + ", or as root";
    }
    return refuse(std::move(problem));
  }
  kj::AutoCloseFd owned(fd);
  if (::fchmod(fd, 0600) != 0 || !writeAll(fd, content) || ::fsync(fd) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return refuse(systemProblem(temporary, "can't write", error));
  }
  return owned;
}

// rename(2) that never replaces; link(2) where the file system doesn't know RENAME_NOREPLACE. 0 or errno.
int moveIntoPlace(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (::link(from.c_str(), to.c_str()) != 0) return errno;
  ::unlink(from.c_str());
  return 0;
}

Result<void, Problem> checkPrivate(const fs::path& path, int fd, const FileOwners& owners) {
  struct stat status;
  if (::fstat(fd, &status) != 0) return refuse(systemProblem(path, "can't examine", errno));
  if (!S_ISREG(status.st_mode)) return refuse(notAFile(path, status.st_mode));
  if (!owners.allows(status.st_uid)) {
    return refuse(Problem{
        path.string() + " belongs to another user (uid " + std::to_string(status.st_uid) + ")",
        "give it to the user who runs this program: chown " + std::to_string(::geteuid()) + " " + path.string()});
  }
  if ((status.st_mode & 077) != 0) {
    return refuse(Problem{path.string() + " can be used by others (mode " + octal(status.st_mode) + ")",
                          "chmod 600 " + path.string()});
  }
  return {};
}

}  // namespace

bool FileOwners::allows(uid_t uid) const {
  if (allowed.empty()) return uid == 0 || uid == ::geteuid();
  return std::find(allowed.begin(), allowed.end(), uid) != allowed.end();
}

Result<kj::AutoCloseFd, Problem> openPrivate(const fs::path& path, int flags, const FileOwners& owners, bool* missing) {
  // O_NONBLOCK: a FIFO put in the place of a key must not hang the start; it is refused below.
  const int fd = ::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    if (missing != nullptr) *missing = error == ENOENT;
    struct stat status;
    // A link, and what can't be opened for writing.
    if ((error == ELOOP || error == EISDIR || error == ENXIO) && ::lstat(path.c_str(), &status) == 0 &&
        !S_ISREG(status.st_mode)) {
      return refuse(notAFile(path, status.st_mode));
    }
    return refuse(systemProblem(path, "can't open", error));
  }
  kj::AutoCloseFd owned(fd);
  auto good = checkPrivate(path, fd, owners);
  if (!good) return refuse(good.error());
  return owned;
}

Result<SecretText, Problem> readPrivate(const fs::path& path, const FileOwners& owners, bool* missing) {
  auto fd = openPrivate(path, O_RDONLY, owners, missing);
  if (!fd) return refuse(fd.error());
  SecretText text;
  while (true) {
    if (text.room().empty()) {
      return refuse(Problem{path.string() + " is longer than " + std::to_string(SecretText::CAPACITY - 1) + " bytes",
                            "it is another file than the one that is wanted there: put that one back"});
    }
    const ssize_t got = ::read(fd->get(), text.room().data(), text.room().size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refuse(systemProblem(path, "can't read", errno));
    if (got == 0) return text;
    text.grow(static_cast<size_t>(got));
  }
}

Result<SecretText, Problem> readCredential(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return refuse(Problem{path.string() + ": can't open: " + std::strerror(errno), {}});
  kj::AutoCloseFd owned(fd);
  SecretText text;
  while (!text.room().empty()) {
    const ssize_t got = ::read(fd, text.room().data(), text.room().size());
    if (got < 0) return refuse(Problem{path.string() + ": can't read: " + std::strerror(errno), {}});
    if (got == 0) return text;
    text.grow(static_cast<size_t>(got));
  }
  return refuse(Problem{path.string() + " is too long for a credential", {}});
}

Result<kj::AutoCloseFd, Problem> createPrivate(const fs::path& path, std::string_view content, Creation* creation) {
  const fs::path temporary = temporaryFor(path);
  auto fd = writeTemporary(temporary, content);
  if (!fd) return refuse(fd.error());
  int error = 0;
  if (creation != nullptr && creation->prepare && !creation->prepare(fd->get())) error = errno != 0 ? errno : EIO;
  if (error == 0) error = moveIntoPlace(temporary, path);
  if (error == EEXIST) {
    ::unlink(temporary.c_str());
    if (creation != nullptr) creation->exists = true;
    return refuse(Problem{path.string() + " exists already", {}});
  }
  if (error != 0) {
    ::unlink(temporary.c_str());
    return refuse(systemProblem(path, "can't create", error));
  }
  error = syncFolder(folderOf(path));
  if (error != 0) return refuse(systemProblem(path, "created, but the folder can't be made durable", error));
  return kj::mv(*fd);
}

Result<void, Problem> replacePrivate(const fs::path& path, std::string_view content) {
  const fs::path temporary = temporaryFor(path);
  auto fd = writeTemporary(temporary, content);
  if (!fd) return refuse(fd.error());
  struct stat old;
  // Root re-sealing the key of a service user must not take the file away from it.
  if (::stat(path.c_str(), &old) == 0 && old.st_uid != ::geteuid() &&
      ::fchown(fd->get(), old.st_uid, old.st_gid) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return refuse(systemProblem(path, "can't keep the owner", error));
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return refuse(systemProblem(path, "can't replace", error));
  }
  const int error = syncFolder(folderOf(path));
  if (error != 0) return refuse(systemProblem(path, "replaced, but the folder can't be made durable", error));
  return {};
}

Result<void, Problem> checkFolder(const fs::path& folder, bool create) {
  struct stat status;
  if (::stat(folder.c_str(), &status) != 0) {
    if (errno != ENOENT || !create) {
      Problem problem = systemProblem(folder, "can't open the folder", errno);
      if (errno == ENOENT)
        problem.hint = "make a key with `sallyport key new NAME`, or set [vault] keys to the right folder";
      return refuse(std::move(problem));
    }
    std::error_code failure;
    fs::create_directories(folder.parent_path(), failure);
    if (::mkdir(folder.c_str(), 0700) != 0) return refuse(systemProblem(folder, "can't make the folder", errno));
    return {};
  }
  if (!S_ISDIR(status.st_mode))
    return refuse(
        Problem{folder.string() + " is not a folder", "move it away, or name another folder in the configuration"});
  if ((status.st_mode & 022) != 0) {
    return refuse(Problem{folder.string() + " can be changed by others (mode " + octal(status.st_mode) + ")",
                          "chmod 700 " + folder.string()});
  }
  return {};
}

int syncFolder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  kj::AutoCloseFd owned(fd);
  // EINVAL: a file system that has nothing to flush for a folder.
  return ::fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
}

}  // namespace sallyport::vaultd
