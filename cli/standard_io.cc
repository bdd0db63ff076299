// standard_io.cc - see standard_io.h.
#include "cli/standard_io.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <utility>

#include <kj/debug.h>

namespace sallyport::cli {
namespace {

constexpr size_t KEEP_QUEUE_BYTES = 1 << 20;

}  // namespace

InputReader::InputReader(EventLoop& loop, int fd, size_t chunkBytes, std::function<void(ByteSpan)> onInput,
                         std::function<void(int)> onError)
    : loop_(loop), fd_(fd), buffer_(chunkBytes), onInput_(std::move(onInput)), onError_(std::move(onError)) {
  struct stat status {};
  pollable_ =
      ::fstat(fd_, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode) || ::isatty(fd_) != 0);
  // A larger pipe saves turns; it's no matter if the system refuses.
  if (S_ISFIFO(status.st_mode)) ::fcntl(fd_, F_SETPIPE_SZ, static_cast<int>(std::min(chunkBytes, size_t{1} << 20)));
}

InputReader::~InputReader() { pause(); }

void InputReader::resume() {
  if (running_ || ended_) return;
  running_ = true;
  if (pollable_) {
    loop_.add(fd_, EPOLLIN, *this);
  } else {
    readLater();
  }
}

void InputReader::pause() {
  if (!running_) return;
  running_ = false;
  if (pollable_) loop_.remove(fd_, *this);
  // later_ is left to fire in vain: this may be called by it.
}

void InputReader::onEvents(uint32_t) { readOnce(); }

// By way of a timer: other descriptors get their turn between two reads of a file.
void InputReader::readLater() {
  later_ = loop_.timer()
               .afterDelay(0 * kj::MILLISECONDS)
               .then([this] {
                 if (!running_) return;
                 readOnce();
                 if (running_) loop_.defer([this] { readLater(); });
               })
               .eagerlyEvaluate(nullptr);
}

void InputReader::readOnce() {
  const auto got = ::read(fd_, buffer_.data(), buffer_.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (got <= 0) {
    const int error = got < 0 ? errno : 0;
    pause();
    ended_ = true;
    if (error != 0) return onError_(error);
  }
  onInput_(ByteSpan(buffer_).first(static_cast<size_t>(got)));
}

OutputWriter::OutputWriter(EventLoop& loop, int fd, std::function<void()> onProgress, std::function<void(int)> onError)
    : loop_(loop), fd_(fd), writeFd_(fd), onProgress_(std::move(onProgress)), onError_(std::move(onError)) {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) return;
  if (S_ISSOCK(status.st_mode)) {
    kind_ = Kind::Socket;
  } else if (S_ISFIFO(status.st_mode) || ::isatty(fd_) != 0) {
    const auto path = "/proc/self/fd/" + std::to_string(fd_);
    const int second = ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (second >= 0) writeFd_ = second;
    kind_ = second >= 0 ? Kind::Nonblocking : Kind::SmallSteps;
  }
}

OutputWriter::~OutputWriter() {
  watch(false);
  if (writeFd_ != fd_ && writeFd_ >= 0) ::close(writeFd_);
}

void OutputWriter::write(ByteSpan bytes) {
  if (failed_ || closed_) return;
  queue_.insert(queue_.end(), bytes.begin(), bytes.end());
  // SmallSteps must be told by epoll that one small write won't block.
  if (kind_ == Kind::SmallSteps) return watch(true);
  flush();
}

void OutputWriter::end() {
  endWanted_ = true;
  flush();
}

void OutputWriter::onEvents(uint32_t) {
  flush();
  if (!failed_) onProgress_();
}

ssize_t OutputWriter::writeSome() {
  const auto* from = queue_.data() + written_;
  switch (kind_) {
    case Kind::Socket: return ::send(writeFd_, from, queued(), MSG_DONTWAIT | MSG_NOSIGNAL);
    case Kind::SmallSteps: return ::write(writeFd_, from, std::min<size_t>(queued(), PIPE_BUF));
    case Kind::Nonblocking:
    case Kind::Blocking: return ::write(writeFd_, from, queued());
  }
  return -1;
}

void OutputWriter::flush() {
  if (failed_ || closed_) return;
  while (queued() > 0) {
    const auto done = writeSome();
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno == EAGAIN) return watch(true);
    if (done < 0) return fail(errno);
    written_ += static_cast<size_t>(done);
    if (kind_ == Kind::SmallSteps && queued() > 0) return watch(true);
  }
  queue_.clear();
  written_ = 0;
  if (queue_.capacity() > KEEP_QUEUE_BYTES) std::vector<std::byte>().swap(queue_);
  watch(false);
  if (endWanted_) closeNow();
}

void OutputWriter::closeNow() {
  closed_ = true;
  if (kind_ == Kind::Socket) {
    ::shutdown(fd_, SHUT_WR);
    return;
  }
  // The number stays taken, by a file that is never full: nothing opened later becomes standard output by accident.
  const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null >= 0) {
    ::dup2(null, fd_);
    ::close(null);
  }
  if (writeFd_ != fd_) ::close(std::exchange(writeFd_, fd_));
}

void OutputWriter::fail(int error) {
  watch(false);
  failed_ = true;
  onError_(error);
}

void OutputWriter::watch(bool wanted) {
  if (wanted == watching_) return;
  watching_ = wanted;
  if (wanted) {
    loop_.add(writeFd_, EPOLLOUT, *this);
  } else {
    loop_.remove(writeFd_, *this);
  }
}

}  // namespace sallyport::cli
