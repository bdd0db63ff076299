// descriptor_transport.h - a Transport over two descriptors and the system's clock. For tests: it asks poll before each
// read and write, so the descriptors may be of any kind, blocking or not.
#pragma once

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "peer/endpoint.h"

namespace sallyport::peer::test {

class DescriptorTransport final : public Transport {
 public:
  DescriptorTransport(int in, int out) : in_(in), out_(out) {}

  Io read(MutableByteSpan bytes) override {
    if (!ready(in_, POLLIN)) return {Io::State::Blocked};
    return moved(::read(in_, bytes.data(), bytes.size()));
  }
  // No more than what a pipe that poll calls writable takes without waiting.
  Io write(ByteSpan bytes) override {
    if (!ready(out_, POLLOUT)) return {Io::State::Blocked};
    return moved(::write(out_, bytes.data(), std::min<size_t>(bytes.size(), 4096)));
  }
  void wait(bool toRead, bool toWrite, uint64_t untilMs) override {
    pollfd fds[] = {{toRead ? in_ : -1, POLLIN, 0}, {toWrite ? out_ : -1, POLLOUT, 0}};
    const uint64_t now = nowMs();
    if (untilMs > now) poll(fds, 2, static_cast<int>(std::min<uint64_t>(untilMs - now, 1000)));
  }
  uint64_t nowMs() override {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1000000;
  }

 private:
  static bool ready(int fd, short events) {
    pollfd one{fd, events, 0};
    return poll(&one, 1, 0) == 1;
  }
  static Io moved(ssize_t count) {
    if (count > 0) return {Io::State::Done, static_cast<size_t>(count)};
    if (count == 0) return {Io::State::Ended};
    return {errno == EAGAIN || errno == EINTR ? Io::State::Blocked : Io::State::Failed};
  }

  int in_;
  int out_;
};

}  // namespace sallyport::peer::test
