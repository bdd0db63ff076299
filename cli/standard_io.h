// standard_io.h - standard input and output on the event loop, whatever they are. Part of: cli.
//
// Pipes, terminals and sockets are waited for; files and devices, which epoll refuses, are always ready. The
// descriptors are shared with the shell and its other programs, so O_NONBLOCK is never set on them: input is read once
// per readiness, and output goes through a second, non-blocking opening of the same pipe or terminal where the system
// allows it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/bytes.h"
#include "common/event_loop.h"

namespace sallyport::cli {

class InputReader final : private EventLoop::Watcher {
 public:
  // `onInput` gets what one read gave, at most `chunkBytes`; nothing means the end, and is told once. `onError` gets
  // the errno.
  InputReader(EventLoop& loop, int fd, size_t chunkBytes, std::function<void(ByteSpan)> onInput,
              std::function<void(int)> onError);
  ~InputReader();

  // Reads nothing while paused. It begins paused.
  void resume();
  void pause();

 private:
  void onEvents(uint32_t events) override;
  void readOnce();
  void readLater();

  EventLoop& loop_;
  int fd_;
  bool pollable_ = true;
  bool running_ = false;
  bool ended_ = false;
  std::vector<std::byte> buffer_;
  std::function<void(ByteSpan)> onInput_;
  std::function<void(int)> onError_;
  kj::Promise<void> later_ = nullptr;
};

class OutputWriter final : private EventLoop::Watcher {
 public:
  // `onProgress` is called when queued bytes have been written, and when the end has been; `onError` once, with the
  // errno.
  OutputWriter(EventLoop& loop, int fd, std::function<void()> onProgress, std::function<void(int)> onError);
  ~OutputWriter();

  // Queues the bytes and writes what can be written now.
  void write(ByteSpan bytes);
  // After the queued bytes the reader sees the end: the descriptor is closed, a socket half-closed.
  void end();
  size_t queued() const { return queue_.size() - written_; }
  bool failed() const { return failed_; }

 private:
  enum class Kind { Nonblocking, Socket, Blocking, SmallSteps };

  void onEvents(uint32_t events) override;
  void flush();
  ssize_t writeSome();
  void fail(int error);
  void watch(bool wanted);
  void closeNow();

  EventLoop& loop_;
  int fd_;
  int writeFd_;  // a second opening, or the same
  Kind kind_ = Kind::Blocking;
  bool watching_ = false;
  bool endWanted_ = false;
  bool closed_ = false;
  bool failed_ = false;
  std::vector<std::byte> queue_;
  size_t written_ = 0;
  std::function<void()> onProgress_;
  std::function<void(int)> onError_;
};

}  // namespace sallyport::cli
