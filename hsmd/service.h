// service.h - what a worker answers to each request. Part of: hsmd (worker). docs/protocol.md §12.
// Called by several threads, each with its Line. What must never happen here: a secret in a reply, a reply for a
// request of another epoch that touched the token.
#pragma once

#include "hsmd/page.h"
#include "hsmd/token.h"

namespace sallyport::hsmd {

class Service {
 public:
  struct Facts {
    uint32_t epoch = 0;
    Status login = Status::Ok;  // what the start came to; a worker that isn't logged in never becomes so
    uint16_t sessions = 0;
    bool operatorMode = false;
    int statusFd = -1;  // /proc/self/status, opened while that was possible; -1: none
  };
  // `after` says what is to be done when the reply has gone.
  enum class After : uint8_t { GoOn, End };
  struct Handled {
    hsm::Reply reply;
    After after = After::GoOn;
  };

  Service(Token& token, ClientPage& page, PinRecord& pin, const Board& board, Facts facts);
  Handled handle(const hsm::Request& request, Line& line);

 private:
  using Result = Outcome<hsm::Answer>;
  Result answer(const hsm::Hello&, Line&);
  Result answer(const hsm::List&, Line&);
  Result answer(const hsm::Derive&, Line&);
  Result answer(const hsm::Sign&, Line&);
  Result answer(const hsm::Wrap&, Line&);
  Result answer(const hsm::Unwrap&, Line&);
  Result answer(const hsm::Generate&, Line&);
  Result answer(const hsm::Import&, Line&);
  Result answer(const hsm::Random&, Line&);
  Result answer(const hsm::Ping&, Line&);
  Result answer(const hsm::Login&, Line&);
  Result answer(const hsm::Logout&, Line&);
  Result answer(const hsm::Probe&, Line&);

  // A key that is there, of the kind and proved; the reason why not.
  Outcome<const hsm::KeyInfo*> usable(uint16_t key, hsm::KeyKind kind);
  Outcome<void> checkNew(hsm::KeyKind kind, const hsm::KeyId& id, const hsm::KeyLabel& label);
  // Makes the key by `make`, proves it, and adds it to the list.
  using Maker = std::function<Outcome<KeyPair>(const Session&, const NewKey&)>;
  Result makeKey(Line& line, const hsm::KeyId& id, const hsm::KeyLabel& label, const Maker& make);

  Token& token_;
  ClientPage& page_;
  PinRecord& pin_;
  const Board& board_;
  Facts facts_;
  std::mutex single_;  // Login, Logout, Generate and Import
  std::atomic<uint64_t> calls_ = 0;
  std::atomic<bool> ending_ = false;
};

}  // namespace sallyport::hsmd
