// faults.h - how the mock module goes wrong on demand. The folder of its token holds a text file `faults`, read again
// on every call, so a test changes it while the module runs (in place, by one write; see tests/system/tokens.py):
//
//   C_DeriveKey return=CKR_DEVICE_REMOVED              # instead of doing it
//   C_DeriveKey after=10 times=3 latency=700           # calls 11, 12 and 13 take 700 ms longer
//   * hang after=100                                   # any function
//   token max_sessions=16 without=CKM_AES_GCM          # what the token is like
//
// after= and times= count calls that match the line, over all processes: so a fault can hit the first worker and spare
// its successor. A line that must count afresh differs in its comment. Lines apply in their order, until one returns.
//   before the call  return=CKR_X|0xN  latency=MS  hang  segfault  abort  exit=N  fork  threads=N  syslog  leak=KIB
//                    babble=FD (500 datagrams of zeros into a socket of its process)
//                    syscall=NAME (see attempt(): what a taken-over module might try)  lose-sessions  null  holes
//   on its result    wrong  zero  strip=first|last (only if that byte is zero)  length=N (claimed, whatever was
//   written)
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/mock_pkcs11/counters.h"
#include "tests/mock_pkcs11/cryptoki.h"

namespace sallyport::mock {

// What has to happen to a call; its side effects have happened when it is returned.
struct Plan {
  std::optional<CK_RV> rv;  // answer this and do nothing
  bool wrong = false, zero = false, stripFirst = false, stripLast = false, loseSessions = false;
  bool null = false, holes = false;  // of C_GetFunctionList
  std::optional<CK_ULONG> length;
};

// The `token` lines.
struct Traits {
  CK_ULONG maxSessions = 0;  // 0: no limit
  bool derPoint = false;     // point=der: CKA_EC_POINT is a DER octet string
  bool peerRaw = true;       // peer=raw|der: how a peer's point may come; both unless said
  bool peerDer = true;
  bool nameParams = false;           // params=name: curves by PrintableString and not by OID
  bool stickyOperations = false;     // sticky_operations=1: after a failed operation the session stays in it
  bool removed = false;              // removed=1: nothing is in the slot
  std::vector<std::string> without;  // mechanisms it lacks, by name; "OAEP-SHA256" and "OAEP-SHA1" too
  bool lacks(std::string_view mechanism) const;
};

class Faults {
 public:
  Faults() = default;
  ~Faults();
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;
  // Once, early: `folder` is the token's. Without it nothing ever goes wrong.
  void open(const std::string& folder);
  bool isOpen() const { return fd_ >= 0; }
  Plan enter(std::string_view function);
  Traits traits();
  Counters& counters() { return counters_; }

 private:
  struct Rule {
    std::string id, function;
    std::vector<std::pair<std::string, std::string>> actions;
    uint64_t after = 0, times = ~uint64_t{0};
  };
  void refresh();
  static std::optional<Rule> parseRule(std::string_view line);
  void parseTraits(std::string_view line);

  std::mutex mutex_;
  int fd_ = -1;
  std::string text_;
  std::vector<Rule> rules_;
  Traits traits_;
  Counters counters_;
};

std::optional<CK_RV> ckrByName(std::string_view name);

}  // namespace sallyport::mock
