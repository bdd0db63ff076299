// module.cc - see module.h. Part of: hsmd (worker and probe).
#include "hsmd/module.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "common/log.h"
#include "hsmd/last_call.h"

namespace sallyport::hsmd {

namespace {

constexpr CK_ULONG MAX_SLOTS = 256;

// The standard's arguments and one more pointer: NSS has LibraryParameters where the standard has pReserved, and
// pReserved behind it.
struct InitialiseArguments {
  CK_C_INITIALIZE_ARGS standard{};
  void* reservedOfNss = nullptr;
};

template <size_t N>
std::string unpadded(const unsigned char (&field)[N]) {
  std::string text(reinterpret_cast<const char*>(field), N);
  const auto end = text.find_last_not_of(std::string_view(" \0", 2));
  text.resize(end == text.npos ? 0 : end + 1);
  return text;
}

CK_ULONG limitOf(CK_ULONG value) {
  return value == CK_UNAVAILABLE_INFORMATION || value == CK_EFFECTIVELY_INFINITE ? 0 : value;
}

// All that we call. A module without one of them isn't finished.
bool isComplete(const CK_FUNCTION_LIST& list) {
  const auto are = [](auto... functions) { return ((functions != nullptr) && ...); };
  return are(list.C_Initialize, list.C_GetInfo, list.C_GetSlotList, list.C_GetTokenInfo, list.C_GetMechanismInfo,
             list.C_OpenSession, list.C_CloseSession, list.C_CloseAllSessions, list.C_Login, list.C_Logout) &&
         are(list.C_FindObjectsInit, list.C_FindObjects, list.C_FindObjectsFinal, list.C_GetAttributeValue,
             list.C_CreateObject, list.C_CopyObject, list.C_DestroyObject) &&
         are(list.C_GenerateKey, list.C_GenerateKeyPair, list.C_DeriveKey, list.C_SignInit, list.C_Sign,
             list.C_EncryptInit, list.C_Encrypt, list.C_DecryptInit, list.C_Decrypt, list.C_GenerateRandom);
}

}  // namespace

namespace {

Unexpected<Failure> noModule(std::string why) {
  logError("module can't be used: " + why);
  return {Failure{Status::NoModule, CKR_OK, std::move(why)}};
}

}  // namespace

Outcome<Module> Module::load(const std::filesystem::path& path, const std::string& initArguments) {
  if (!path.is_absolute()) return noModule("its path isn't absolute");
  // The loader would wait for ever for somebody to write into a pipe.
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    return noModule(sanitized(path.string()) + ": is no regular file");
  noteCall("dlopen");
  // Lazy binding would put relocations into the middle of a derive, after code may no longer be made writable.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* problem = dlerror();
    return noModule(sanitized(problem != nullptr ? problem : "the loader gives no reason"));
  }
  const auto getFunctionList = reinterpret_cast<CK_C_GetFunctionList>(dlsym(library, "C_GetFunctionList"));
  CK_FUNCTION_LIST* functions = nullptr;
  if (getFunctionList == nullptr) return noModule("it has no C_GetFunctionList: it is another kind of library");
  noteCall("C_GetFunctionList");
  if (const CK_RV rv = getFunctionList(&functions); rv != CKR_OK) return failed(Status::NoModule, rv);
  if (functions == nullptr) return noModule("C_GetFunctionList gave no list");
  if (!isComplete(*functions)) return noModule("it lacks functions that every PKCS#11 module has");
  Module module(functions);
  if (auto ready = module.initialise(initArguments); !ready) return refuse(ready.error());
  return module;
}

Outcome<void> Module::initialise(const std::string& initArguments) {
  InitialiseArguments arguments;
  arguments.standard.flags = CKF_OS_LOCKING_OK;
  // The standard's pReserved must be null; only who asks for it gets anything there.
  if (!initArguments.empty()) arguments.standard.pReserved = const_cast<char*>(initArguments.c_str());
  noteCall("C_Initialize");
  CK_RV rv = functions_->C_Initialize(&arguments);
  if (rv == CKR_CANT_LOCK) {
    threadSafe_ = false;
    arguments.standard.flags = 0;
    rv = functions_->C_Initialize(&arguments);
  }
  if (rv != CKR_OK) return failed(Status::NoModule, rv);
  return {};
}

std::string Module::describe() const {
  CK_INFO info{};
  if (functions_->C_GetInfo(&info) != CKR_OK) return "";
  return unpadded(info.manufacturerID) + " " + std::to_string(info.libraryVersion.major) + "." +
         std::to_string(info.libraryVersion.minor);
}

Outcome<TokenFacts> tokenFacts(const Module& module, CK_SLOT_ID slot) {
  CK_TOKEN_INFO info{};
  if (const CK_RV rv = module->C_GetTokenInfo(slot, &info); rv != CKR_OK) return failed(Status::DeviceRemoved, rv);
  return TokenFacts{.slot = slot,
                    .flags = info.flags,
                    .label = unpadded(info.label),
                    .manufacturer = unpadded(info.manufacturerID),
                    .model = unpadded(info.model),
                    .serial = unpadded(info.serialNumber),
                    .maxSessions = limitOf(info.ulMaxSessionCount),
                    .maxRwSessions = limitOf(info.ulMaxRwSessionCount),
                    .minPin = info.ulMinPinLen,
                    .maxPin = info.ulMaxPinLen};
}

bool matches(const Pkcs11Uri& uri, const TokenFacts& token) {
  const auto agrees = [](const std::optional<std::string>& wanted, const std::string& found) {
    return !wanted || *wanted == found;
  };
  return agrees(uri.token, token.label) && agrees(uri.manufacturer, token.manufacturer) &&
         agrees(uri.model, token.model) && agrees(uri.serial, token.serial);
}

Outcome<TokenFacts> findToken(const Module& module, const Pkcs11Uri& uri) {
  std::array<CK_SLOT_ID, MAX_SLOTS> slots{};
  CK_ULONG count = slots.size();
  noteCall("C_GetSlotList");
  const CK_RV rv = module->C_GetSlotList(CK_TRUE, slots.data(), &count);
  if (rv != CKR_OK) return failed(rv == CKR_BUFFER_TOO_SMALL ? Status::AmbiguousToken : Status::NoToken, rv);
  if (count > slots.size()) return failed(Status::BadResult);
  std::optional<TokenFacts> found;
  CK_RV unread = CKR_OK;
  noteCall("C_GetTokenInfo");
  for (CK_ULONG i = 0; i < count; ++i) {
    auto facts = tokenFacts(module, slots[i]);
    if (!facts) unread = facts.error().rv;
    if (!facts || (facts->flags & CKF_TOKEN_INITIALIZED) == 0 || !matches(uri, *facts)) continue;
    if (found) return failed(Status::AmbiguousToken);
    found = std::move(*facts);
  }
  if (!found) return failed(Status::NoToken, unread);
  return std::move(*found);
}

bool hasMechanism(const Module& module, CK_SLOT_ID slot, CK_MECHANISM_TYPE mechanism, CK_FLAGS flags) {
  CK_MECHANISM_INFO info{};
  return module->C_GetMechanismInfo(slot, mechanism, &info) == CKR_OK && (info.flags & flags) == flags;
}

}  // namespace sallyport::hsmd
