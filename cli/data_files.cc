// data_files.cc - see data_files.h.
#include "cli/data_files.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;

constexpr int PIPE_BYTES = 1 << 20;
constexpr size_t ARMOR_PIECE_BYTES = 64 * 1024;

Unexpected<std::string> problem(const std::string& name, std::string_view what) {
  return refuse(name + ": " + std::string(what) + ": " + std::strerror(errno));
}

// The descriptor may have been made non-blocking by another program that shares it.
void waitFor(int fd, short events) {
  pollfd waiting{.fd = fd, .events = events, .revents = 0};
  ::poll(&waiting, 1, -1);
}

// Fewer turns between the two ends; it's no matter if it isn't a pipe, or the system refuses.
void widenPipe(int fd) { ::fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES); }

bool isStandard(const std::string& path) { return path.empty() || path == "-"; }

mode_t currentUmask() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return mask;
}

// A name in the folder of `target` that nothing has yet: mkostemp makes it.
kj::AutoCloseFd namedTemporary(const fs::path& target, fs::path& temporary) {
  auto name = (target.parent_path() / ("." + target.filename().string() + ".XXXXXX")).string();
  kj::AutoCloseFd fd(::mkostemp(name.data(), O_CLOEXEC));
  if (fd.get() >= 0) temporary = name;
  return fd;
}

}  // namespace

Result<InputFile, std::string> InputFile::open(const std::string& path) {
  if (isStandard(path)) {
    widenPipe(STDIN_FILENO);
    return InputFile("standard input", {}, STDIN_FILENO);
  }
  kj::AutoCloseFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  struct stat status {};
  if (fd.get() < 0 || ::fstat(fd, &status) != 0) return problem(path, "can't be read");
  if (S_ISDIR(status.st_mode)) return refuse(path + ": is a folder");
  const int number = fd;
  ::posix_fadvise(number, 0, 0, POSIX_FADV_SEQUENTIAL);
  return InputFile(path, kj::mv(fd), number);
}

Result<void, std::string> InputFile::takeOffArmor() {
  ahead_.resize(1);
  const auto got = readRaw(ahead_);
  if (!got) return refuse(got.error());
  ahead_.resize(*got);
  if (ahead_.empty() || ahead_[0] != static_cast<std::byte>(file::ARMOR_BEGIN[0])) return {};
  armor_.emplace();
  ahead_.clear();
  CHECK(armor_->read(file::ARMOR_BEGIN.substr(0, 1), ahead_).has_value());
  return {};
}

// The next bytes of what is in the armor, into `ahead_`: none at the end.
Result<void, std::string> InputFile::readArmor() {
  ahead_.clear();
  given_ = 0;
  std::vector<std::byte> text(ARMOR_PIECE_BYTES);
  while (ahead_.empty() && !atEnd_) {
    const auto got = readRaw(text);
    if (!got) return refuse(got.error());
    atEnd_ = *got < text.size();
    auto read = armor_->read({reinterpret_cast<const char*>(text.data()), *got}, ahead_);
    if (read && atEnd_) read = armor_->finish(ahead_);
    if (!read) return refuse(name_ + ": " + std::string(file::describe(read.error())));
  }
  return {};
}

Result<size_t, std::string> InputFile::read(MutableByteSpan bytes) {
  size_t size = 0;
  for (;;) {
    const ByteSpan piece = ByteSpan(ahead_).subspan(given_, std::min(ahead_.size() - given_, bytes.size() - size));
    std::ranges::copy(piece, bytes.subspan(size).begin());
    size += piece.size();
    given_ += piece.size();
    if (size == bytes.size() || !armor_ || atEnd_) break;
    if (auto more = readArmor(); !more) return refuse(more.error());
  }
  if (size == bytes.size() || armor_) return size;
  const auto rest = readRaw(bytes.subspan(size));
  if (!rest) return rest;
  return size + *rest;
}

Result<size_t, std::string> InputFile::readRaw(MutableByteSpan bytes) {
  size_t size = 0;
  while (size < bytes.size()) {
    const auto got = ::read(fd_, bytes.data() + size, bytes.size() - size);
    if (got == 0) break;
    if (got > 0) {
      size += static_cast<size_t>(got);
    } else if (errno == EAGAIN) {
      waitFor(fd_, POLLIN);
    } else if (errno != EINTR) {
      return problem(name_, "can't be read");
    }
  }
  return size;
}

Result<BlockInput::Block, std::string> BlockInput::next() {
  const size_t blockBytes = buffer_.size() - 1;
  const size_t kept = ahead_ ? 1 : 0;
  if (ahead_) buffer_.front() = buffer_.back();
  const auto got = input_.read(buffer_.subspan(kept));
  if (!got) return refuse(got.error());
  const size_t size = kept + *got;
  ahead_ = size == buffer_.size();
  return Block{buffer_.first(ahead_ ? blockBytes : size), !ahead_};
}

bool goesToTerminal(const std::string& path) { return path.empty() && ::isatty(STDOUT_FILENO) != 0; }

Result<OutputFile, std::string> OutputFile::create(const std::string& path, mode_t mode) {
  if (isStandard(path)) {
    widenPipe(STDOUT_FILENO);
    return OutputFile("standard output", {}, STDOUT_FILENO);
  }
  // A symbolic link stays one: what it leads to is replaced.
  std::error_code failure;
  const fs::path target = fs::weakly_canonical(fs::absolute(path), failure);
  if (failure || target.filename().empty()) return refuse(path + ": no file can be made under this name");
  struct stat status {};
  if (::stat(target.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    if (S_ISDIR(status.st_mode)) return refuse(path + ": is a folder");
    kj::AutoCloseFd fd(::open(target.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
    if (fd.get() < 0) return problem(path, "can't be written");
    const int number = fd;
    return OutputFile(path, kj::mv(fd), number);
  }
  // Without a name where the file system can do that: then even a `kill -9` leaves nothing behind.
  kj::AutoCloseFd fd(::open(target.parent_path().c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  fs::path temporary;
  if (fd.get() < 0) fd = namedTemporary(target, temporary);
  if (fd.get() < 0) return problem(path, "no file can be made in its folder");
  const int number = fd;
  OutputFile file(path, kj::mv(fd), number);
  file.target_ = target;
  file.temporary_ = temporary;
  if (::fchmod(number, mode & ~currentUmask()) != 0) return problem(path, "can't be given its mode");
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : name_(std::move(other.name_)),
      target_(std::exchange(other.target_, {})),
      temporary_(std::exchange(other.temporary_, {})),
      own_(kj::mv(other.own_)),
      fd_(other.fd_),
      armor_(std::move(other.armor_)) {}

OutputFile::~OutputFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<void, std::string> OutputFile::write(ByteSpan bytes) {
  return armor_ ? writeRaw(asBytes(armor_->write(bytes))) : writeRaw(bytes);
}

Result<void, std::string> OutputFile::writeRaw(ByteSpan bytes) {
  while (!bytes.empty()) {
    const auto written = ::write(fd_, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {
      waitFor(fd_, POLLOUT);
    } else if (errno != EINTR) {
      return problem(name_, "can't be written");
    }
  }
  return {};
}

Result<void, std::string> OutputFile::finish() {
  if (armor_) {
    if (auto written = writeRaw(asBytes(armor_->finish())); !written) return written;
  }
  if (target_.empty()) return {};
  if (::fsync(fd_) != 0) return problem(name_, "can't be written");
  if (temporary_.empty()) {
    // A link can't take the place of a file, a rename can: so it gets a name that nothing has, for a moment.
    fs::path name;
    if (namedTemporary(target_, name).get() < 0) return problem(name_, "no file can be made in its folder");
    const auto self = "/proc/self/fd/" + std::to_string(fd_);
    if (::unlink(name.c_str()) != 0 || ::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0)
      return problem(name_, "can't be given its name");
    temporary_ = name;
  }
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) return problem(name_, "can't be replaced");
  temporary_.clear();
  kj::AutoCloseFd folder(::open(target_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::fsync(folder) != 0) return problem(name_, "is written, but perhaps not durably");
  return {};
}

}  // namespace sallyport::cli
