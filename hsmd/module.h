// module.h - one PKCS#11 module, loaded and initialised. Part of: hsmd (the worker and the probe; nothing else in the
// product calls dlopen). From here on its code runs in this process, with all that the process has.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/pkcs11_uri.h"
#include "hsmd/failure.h"

namespace sallyport::hsmd {

class Module {
 public:
  // Never unloaded or finalised: a process that is done with its module ends.
  static Outcome<Module> load(const std::filesystem::path& path, const std::string& initArguments);
  // Functions that are there already: tests.
  explicit Module(CK_FUNCTION_LIST* functions) : functions_(functions) {}

  // C_Initialize. NSS reads `initArguments` from where the standard has pReserved.
  Outcome<void> initialise(const std::string& initArguments);
  CK_FUNCTION_LIST* operator->() const { return functions_; }
  // False if the module can't be called by more than one thread.
  bool threadSafe() const { return threadSafe_; }
  // Of CK_INFO: "SoftHSM 2.6".
  std::string describe() const;

 private:
  CK_FUNCTION_LIST* functions_;
  bool threadSafe_ = true;
};

// CK_TOKEN_INFO without its padding.
struct TokenFacts {
  CK_SLOT_ID slot = 0;
  CK_FLAGS flags = 0;
  std::string label, manufacturer, model, serial;
  CK_ULONG maxSessions = 0;    // 0: it doesn't say, or there is no limit
  CK_ULONG maxRwSessions = 0;  // the same
  CK_ULONG minPin = 0, maxPin = 0;
};
Outcome<TokenFacts> tokenFacts(const Module& module, CK_SLOT_ID slot);
bool matches(const Pkcs11Uri& uri, const TokenFacts& token);
// The one token that the URI describes.
Outcome<TokenFacts> findToken(const Module& module, const Pkcs11Uri& uri);
bool hasMechanism(const Module& module, CK_SLOT_ID slot, CK_MECHANISM_TYPE mechanism, CK_FLAGS flags);

}  // namespace sallyport::hsmd
