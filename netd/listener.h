// listener.h - an inherited listening socket: where the limits on new connections hold. Part of: netd-worker (edge).
#pragma once

#include <kj/async.h>
#include <kj/io.h>

#include "netd/connection.h"

namespace sallyport::netd {

class Listener final : EventLoop::Watcher {
 public:
  enum class Kind : uint8_t { Wire, Plain };
  Listener(Worker& worker, Kind kind, uint32_t entryId, kj::AutoCloseFd socket);
  ~Listener();

  Kind kind() const { return kind_; }
  // The limits may be others: what it accepts from now on has the options that they ask for.
  void onConfig();
  // Back-pressure: while it rests, connections wait in the kernel's queue.
  void rest(bool resting);
  // Somebody who has connected to it, and where he comes from.
  void acceptFrom(kj::AutoCloseFd socket, const Origin& origin);

 private:
  void onEvents(uint32_t events) override;
  void acceptPlain(kj::AutoCloseFd socket);
  void tooManyDescriptors();
  void makeRoom();
  void restAMoment();

  Worker& worker_;
  Kind kind_;
  uint32_t entryId_;
  kj::AutoCloseFd socket_;
  bool resting_ = false;
  unsigned wokenForNothing_ = 0;  // in a row
  kj::Promise<void> goingOn_ = nullptr;
};

}  // namespace sallyport::netd
