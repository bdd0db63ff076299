// dialed_socket.h - a socket to a configured target, dialled by the monitor. Part of: netd-worker (edge).
// The worker names the entry; the monitor answers with a socket that is connecting; this waits until it is connected,
// and asks for the target's next address when it isn't. Gives up after the configured time.
#pragma once

#include <kj/async.h>
#include <kj/function.h>
#include <kj/io.h>

#include "common/event_loop.h"
#include "netd/control.h"

namespace sallyport::netd {

class Worker;

class DialedSocket final : EventLoop::Watcher {
 public:
  // `onDone` gets the connected socket, or nothing. It may destroy this object.
  using OnDone = kj::Function<void(kj::Maybe<kj::AutoCloseFd>)>;
  DialedSocket(Worker& worker, uint32_t entryId, OnDone onDone);
  ~DialedSocket();

  // The time is over.
  void expire();
  // The monitor's answer (Dialed or DialFailed).
  void onAnswer(ControlChannel::Received& received);

 private:
  void onEvents(uint32_t events) override;
  void ask();
  void askNext(int error);
  void done(kj::Maybe<kj::AutoCloseFd> socket);
  void stopWatching();

  Worker& worker_;
  uint32_t entryId_;
  OnDone onDone_;
  uint64_t attempt_ = 0;
  int error_ = 0;              // errno of the address that was tried last
  bool tellsSuccess_ = false;  // the monitor waits to hear that the entry can be reached again
  uint64_t request_ = 0;
  kj::AutoCloseFd socket_;
  bool watching_ = false;
  kj::Promise<void> deadline_;
};

}  // namespace sallyport::netd
