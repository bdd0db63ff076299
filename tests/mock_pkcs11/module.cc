// module.cc - the C face of the mock PKCS#11 module: one exported name, C_GetFunctionList, as a vendor's module has it.
// Part of: the tests. Its token is a folder, named by $MOCK_PKCS11_DIR or by the string in pReserved of C_Initialize
// ("dir=PATH"), with the files `token` (store.h), `faults` (faults.h) and `counters` (counters.h).
//
// Besides calls it counts what a caller may never do, as "violation:...": two threads in one session, use after fork(),
// threads without CKF_OS_LOCKING_OK.
// lint: size: one short function after the other and the table of them; a split would only hide that
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <sodium.h>

#include "tests/mock_pkcs11/algorithms.h"
#include "tests/mock_pkcs11/token.h"

namespace sallyport::mock {
namespace {

struct Module {
  std::mutex mutex;
  Faults faults;
  Store store;
  Token token{store};
  bool initialized = false, locking = false;
  pid_t pid = 0;
  std::thread::id thread;
  std::atomic<unsigned> inside = 0;
  std::mutex busyMutex;
  std::map<CK_SESSION_HANDLE, unsigned> busy;
};

Module* theModule = nullptr;

Module& module() {
  if (theModule == nullptr) theModule = new Module;
  return *theModule;
}

// At dlclose and at exit; then other threads may still be inside.
__attribute__((destructor)) void onUnload() {
  if (theModule == nullptr || theModule->inside != 0) return;
  delete theModule;
  theModule = nullptr;
}

void openFolder(const char* folder) {
  if (folder == nullptr) return;
  module().faults.open(folder);
  module().store.open(folder);
}

// Faults of the loading itself: `dlopen segfault`.
__attribute__((constructor)) void onLoad() {
  if (const char* folder = getenv("MOCK_PKCS11_DIR"); folder != nullptr) module().faults.open(folder);
  module().faults.enter("dlopen");
}

// Notes who is in a session, for the time of one call.
class Busy {
 public:
  explicit Busy(CK_SESSION_HANDLE session) : session_(session) {
    ++module().inside;
    if (session_ == 0) return;
    std::lock_guard lock(module().busyMutex);
    if (module().busy[session_]++ != 0) module().faults.counters().add("violation:concurrent-session");
  }
  ~Busy() {
    if (session_ != 0) {
      std::lock_guard lock(module().busyMutex);
      if (--module().busy[session_] == 0) module().busy.erase(session_);
    }
    --module().inside;
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  CK_SESSION_HANDLE session_;
};

void noteViolations() {
  Module& m = module();
  if (!m.initialized) return;
  if (getpid() != m.pid) m.faults.counters().add("violation:used-after-fork");
  if (!m.locking && std::this_thread::get_id() != m.thread) m.faults.counters().add("violation:threads");
}

// What every function begins with. `body` gets the plan for its result and the token's traits.
template <typename Body>
CK_RV call(const char* function, CK_SESSION_HANDLE session, Body&& body) {
  Module& m = module();
  const Busy busy(session);
  const Plan plan = m.faults.enter(function);
  std::lock_guard lock(m.mutex);
  noteViolations();
  if (plan.loseSessions) m.token.closeAll();
  if (plan.rv) return *plan.rv;
  if (!m.initialized) return CKR_CRYPTOKI_NOT_INITIALIZED;
  const Traits traits = m.faults.traits();
  if (traits.removed && session != 0) {
    m.token.closeAll();
    return CKR_DEVICE_REMOVED;
  }
  return body(m, plan, traits);
}

template <typename Body>
CK_RV inSession(const char* function, CK_SESSION_HANDLE handle, Body&& body) {
  return call(function, handle, [&](Module& m, const Plan& plan, const Traits& traits) -> CK_RV {
    Session* session = m.token.session(handle);
    if (session == nullptr) return CKR_SESSION_HANDLE_INVALID;
    return body(m.token, *session, plan, traits);
  });
}

bool present(Module& m, const Traits& traits) { return m.store.isOpen() && !traits.removed; }

void pad(unsigned char* field, size_t size, std::string_view text) {
  memset(field, ' ', size);
  memcpy(field, text.data(), std::min(size, text.size()));
}

// The standard's two-call convention: the length alone, or both.
template <typename T>
CK_RV giveList(const std::vector<T>& from, const Plan& plan, T* to, CK_ULONG* count) {
  if (count == nullptr) return CKR_ARGUMENTS_BAD;
  const CK_ULONG room = *count;
  *count = plan.length.value_or(from.size());
  if (to == nullptr) return CKR_OK;
  if (room < from.size()) return CKR_BUFFER_TOO_SMALL;
  std::copy(from.begin(), from.end(), to);
  return CKR_OK;
}

// --- the library and its slot ----------------------------------------------------------------------------------------

CK_RV initialize(void* arguments) {
  Module& m = module();
  const auto* given = static_cast<const CK_C_INITIALIZE_ARGS*>(arguments);
  const char* folder = getenv("MOCK_PKCS11_DIR");
  const auto* text = given == nullptr ? nullptr : static_cast<const char*>(given->pReserved);
  if (text != nullptr && strncmp(text, "dir=", 4) == 0) folder = text + 4;
  {
    std::lock_guard lock(m.mutex);
    openFolder(folder);
  }
  const Plan plan = m.faults.enter("C_Initialize");
  if (plan.rv) return *plan.rv;
  std::lock_guard lock(m.mutex);
  if (m.initialized) return CKR_CRYPTOKI_ALREADY_INITIALIZED;
  if (sodium_init() < 0) return CKR_GENERAL_ERROR;
  m.initialized = true;
  m.locking = given != nullptr && (given->flags & CKF_OS_LOCKING_OK) != 0;
  m.pid = getpid();
  m.thread = std::this_thread::get_id();
  return CKR_OK;
}

CK_RV finalize(void* reserved) {
  return call("C_Finalize", 0, [&](Module& m, const Plan&, const Traits&) -> CK_RV {
    if (reserved != nullptr) return CKR_ARGUMENTS_BAD;
    m.token.closeAll();
    m.initialized = false;
    return CKR_OK;
  });
}

CK_RV getInfo(CK_INFO* info) {
  return call("C_GetInfo", 0, [&](Module&, const Plan&, const Traits&) -> CK_RV {
    if (info == nullptr) return CKR_ARGUMENTS_BAD;
    *info = {};
    info->cryptokiVersion = {3, 0};
    pad(info->manufacturerID, sizeof(info->manufacturerID), "Sallyport");
    pad(info->libraryDescription, sizeof(info->libraryDescription), "mock module for tests");
    info->libraryVersion = {1, 0};
    return CKR_OK;
  });
}

CK_RV getSlotList(unsigned char withToken, CK_SLOT_ID* slots, CK_ULONG* count) {
  return call("C_GetSlotList", 0, [&](Module& m, const Plan& plan, const Traits& traits) -> CK_RV {
    std::vector<CK_SLOT_ID> there;
    if (withToken == 0 || present(m, traits)) there.push_back(SLOT);
    return giveList(there, plan, slots, count);
  });
}

CK_RV getSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO* info) {
  return call("C_GetSlotInfo", 0, [&](Module& m, const Plan&, const Traits& traits) -> CK_RV {
    if (slot != SLOT) return CKR_SLOT_ID_INVALID;
    *info = {};
    pad(info->slotDescription, sizeof(info->slotDescription), "mock slot");
    pad(info->manufacturerID, sizeof(info->manufacturerID), "Sallyport");
    info->flags = CKF_REMOVABLE_DEVICE | CKF_HW_SLOT | (present(m, traits) ? CKF_TOKEN_PRESENT : 0);
    return CKR_OK;
  });
}

CK_RV getTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO* info) {
  return call("C_GetTokenInfo", 0, [&](Module& m, const Plan&, const Traits& traits) -> CK_RV {
    if (slot != SLOT) return CKR_SLOT_ID_INVALID;
    if (!present(m, traits)) return CKR_TOKEN_NOT_PRESENT;
    m.store.reload();
    *info = {};
    pad(info->label, sizeof(info->label), m.store.state().label);
    pad(info->manufacturerID, sizeof(info->manufacturerID), "Sallyport");
    pad(info->model, sizeof(info->model), "mock");
    pad(info->serialNumber, sizeof(info->serialNumber), m.store.state().serial);
    info->flags = CKF_RNG | CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED | CKF_TOKEN_INITIALIZED | m.token.pinFlags();
    info->ulMaxSessionCount = info->ulMaxRwSessionCount = traits.maxSessions;
    info->ulSessionCount = m.token.sessionCount();
    info->ulMaxPinLen = 64;
    info->ulMinPinLen = 4;
    info->ulTotalPublicMemory = info->ulFreePublicMemory = MOCK_UNAVAILABLE;
    info->ulTotalPrivateMemory = info->ulFreePrivateMemory = MOCK_UNAVAILABLE;
    return CKR_OK;
  });
}

CK_RV getMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE* types, CK_ULONG* count) {
  return call("C_GetMechanismList", 0, [&](Module& m, const Plan& plan, const Traits& traits) -> CK_RV {
    if (slot != SLOT) return CKR_SLOT_ID_INVALID;
    if (!present(m, traits)) return CKR_TOKEN_NOT_PRESENT;
    return giveList(mechanisms(traits), plan, types, count);
  });
}

CK_RV getMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO* info) {
  return call("C_GetMechanismInfo", 0, [&](Module&, const Plan&, const Traits& traits) -> CK_RV {
    if (slot != SLOT) return CKR_SLOT_ID_INVALID;
    const auto found = mechanismInfo(type, traits);
    if (!found) return CKR_MECHANISM_INVALID;
    *info = *found;
    return CKR_OK;
  });
}

// --- sessions --------------------------------------------------------------------------------------------------------

CK_RV openSession(CK_SLOT_ID slot, CK_FLAGS flags, void*, CK_NOTIFY, CK_SESSION_HANDLE* session) {
  return call("C_OpenSession", 0, [&](Module& m, const Plan&, const Traits& traits) -> CK_RV {
    if (slot != SLOT) return CKR_SLOT_ID_INVALID;
    if (!present(m, traits)) return CKR_TOKEN_NOT_PRESENT;
    m.store.reload();
    return m.token.openSession(flags, traits, *session);
  });
}

CK_RV closeSession(CK_SESSION_HANDLE session) {
  return inSession("C_CloseSession", session,
                   [&](Token& token, Session&, const Plan&, const Traits&) { return token.closeSession(session); });
}

CK_RV closeAllSessions(CK_SLOT_ID slot) {
  return call("C_CloseAllSessions", 0, [&](Module& m, const Plan&, const Traits&) -> CK_RV {
    if (slot != SLOT) return CKR_SLOT_ID_INVALID;
    m.token.closeAll();
    return CKR_OK;
  });
}

CK_RV getSessionInfo(CK_SESSION_HANDLE handle, CK_SESSION_INFO* info) {
  return inSession("C_GetSessionInfo", handle, [&](Token& token, Session& session, const Plan&, const Traits&) {
    *info = {};
    info->slotID = SLOT;
    info->flags = CKF_SERIAL_SESSION | (session.readWrite ? CKF_RW_SESSION : 0);
    info->state = token.loggedIn()    ? (session.readWrite ? CKS_RW_USER_FUNCTIONS : CKS_RO_USER_FUNCTIONS)
                  : session.readWrite ? CKS_RW_PUBLIC_SESSION
                                      : CKS_RO_PUBLIC_SESSION;
    return CKR_OK;
  });
}

CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char* pin, CK_ULONG pinLen) {
  return inSession("C_Login", session, [&](Token& token, Session&, const Plan&, const Traits&) -> CK_RV {
    if (pin == nullptr) return CKR_ARGUMENTS_BAD;
    return token.login(user, {reinterpret_cast<const char*>(pin), pinLen});
  });
}

CK_RV logout(CK_SESSION_HANDLE session) {
  return inSession("C_Logout", session,
                   [](Token& token, Session&, const Plan&, const Traits&) { return token.logout(); });
}

// --- objects ---------------------------------------------------------------------------------------------------------

CK_RV createObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE* attributes, CK_ULONG count, CK_OBJECT_HANDLE* handle) {
  return inSession("C_CreateObject", session, [&](Token& token, Session&, const Plan&, const Traits&) -> CK_RV {
    Object object = fromTemplate({attributes, count});
    const CK_ULONG type = object.number(CKA_KEY_TYPE);
    const Bytes* secret = object.find(CKA_VALUE);
    const bool curve = type == MOCK_CKK_EC_MONTGOMERY || type == CKK_EC_EDWARDS;
    if (object.number(CKA_CLASS) == CKO_PRIVATE_KEY) {
      if (!curve) return CKR_TEMPLATE_INCONSISTENT;
      if (secret == nullptr || object.find(CKA_EC_PARAMS) == nullptr) return CKR_TEMPLATE_INCOMPLETE;
      if (secret->size() != 32) return CKR_ATTRIBUTE_VALUE_INVALID;
    }
    return token.create(session, std::move(object), *handle);
  });
}

CK_RV copyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE source, CK_ATTRIBUTE* changes, CK_ULONG count,
                 CK_OBJECT_HANDLE* handle) {
  return inSession("C_CopyObject", session, [&](Token& token, Session&, const Plan&, const Traits&) {
    return token.copy(session, source, {changes, count}, *handle);
  });
}

CK_RV destroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle) {
  return inSession("C_DestroyObject", session,
                   [&](Token& token, Session&, const Plan&, const Traits&) { return token.destroy(session, handle); });
}

CK_RV getAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle, CK_ATTRIBUTE* attributes, CK_ULONG count) {
  return inSession("C_GetAttributeValue", session, [&](Token& token, Session&, const Plan& plan, const Traits&) {
    return token.readAttributes(handle, {attributes, count}, plan);
  });
}

CK_RV setAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle, CK_ATTRIBUTE* attributes, CK_ULONG count) {
  return inSession("C_SetAttributeValue", session, [&](Token& token, Session&, const Plan&, const Traits&) {
    return token.setAttributes(session, handle, {attributes, count});
  });
}

CK_RV findObjectsInit(CK_SESSION_HANDLE handle, CK_ATTRIBUTE* attributes, CK_ULONG count) {
  return inSession("C_FindObjectsInit", handle, [&](Token& token, Session& session, const Plan&, const Traits&) {
    return token.find(session, {attributes, count});
  });
}

CK_RV findObjects(CK_SESSION_HANDLE handle, CK_OBJECT_HANDLE* objects, CK_ULONG room, CK_ULONG* count) {
  return inSession("C_FindObjects", handle, [&](Token&, Session& session, const Plan& plan, const Traits&) -> CK_RV {
    if (!session.found) return CKR_OPERATION_NOT_INITIALIZED;
    const size_t n = std::min<size_t>(room, session.found->size());
    std::copy_n(session.found->begin(), n, objects);
    session.found->erase(session.found->begin(), session.found->begin() + static_cast<ptrdiff_t>(n));
    *count = plan.length.value_or(n);
    return CKR_OK;
  });
}

CK_RV findObjectsFinal(CK_SESSION_HANDLE handle) {
  return inSession("C_FindObjectsFinal", handle, [](Token&, Session& session, const Plan&, const Traits&) -> CK_RV {
    if (!session.found) return CKR_OPERATION_NOT_INITIALIZED;
    session.found.reset();
    return CKR_OK;
  });
}

// --- keys ------------------------------------------------------------------------------------------------------------

CK_RV generateKey(CK_SESSION_HANDLE session, CK_MECHANISM* mechanism, CK_ATTRIBUTE* attributes, CK_ULONG count,
                  CK_OBJECT_HANDLE* key) {
  return inSession("C_GenerateKey", session, [&](Token& token, Session&, const Plan&, const Traits& traits) -> CK_RV {
    if (!offers(mechanism->mechanism, traits)) return CKR_MECHANISM_INVALID;
    return token.generateKey(session, *mechanism, {attributes, count}, *key);
  });
}

CK_RV generateKeyPair(CK_SESSION_HANDLE session, CK_MECHANISM* mechanism, CK_ATTRIBUTE* publicPart,
                      CK_ULONG publicCount, CK_ATTRIBUTE* privatePart, CK_ULONG privateCount,
                      CK_OBJECT_HANDLE* publicKey, CK_OBJECT_HANDLE* privateKey) {
  return inSession("C_GenerateKeyPair", session, [&](Token& token, Session&, const Plan&, const Traits& traits) {
    return token.generatePair(session, *mechanism, {publicPart, publicCount}, {privatePart, privateCount}, traits,
                              *publicKey, *privateKey);
  });
}

CK_RV deriveKey(CK_SESSION_HANDLE session, CK_MECHANISM* mechanism, CK_OBJECT_HANDLE base, CK_ATTRIBUTE* attributes,
                CK_ULONG count, CK_OBJECT_HANDLE* key) {
  return inSession("C_DeriveKey", session, [&](Token& token, Session&, const Plan& plan, const Traits& traits) {
    return token.derive(session, *mechanism, base, {attributes, count}, traits, plan, *key);
  });
}

// --- operations ------------------------------------------------------------------------------------------------------

CK_RV begin(const char* function, CK_SESSION_HANDLE handle, Use use, CK_MECHANISM* mechanism, CK_OBJECT_HANDLE key) {
  return inSession(function, handle, [&](Token& token, Session& session, const Plan&, const Traits& traits) {
    return beginOperation(token, session, use, *mechanism, key, traits);
  });
}

CK_RV finish(const char* function, CK_SESSION_HANDLE handle, Use use, View input, unsigned char* out,
             CK_ULONG* length) {
  return inSession(function, handle,
                   [&](Token& token, Session& session, const Plan& plan, const Traits& traits) -> CK_RV {
                     const auto operation = session.operations.find(use);
                     if (operation == session.operations.end()) return CKR_OPERATION_NOT_INITIALIZED;
                     Bytes result;
                     const CK_RV rv = runOperation(token, operation->second, use, input, {}, result);
                     distort(result, plan);
                     const CK_ULONG room = *length;
                     if (rv == CKR_OK) *length = plan.length.value_or(result.size());
                     // Asking for the length, or with too little room, leaves the operation where it was.
                     if (rv == CKR_OK && out == nullptr) return CKR_OK;
                     if (rv == CKR_OK && room < result.size()) return CKR_BUFFER_TOO_SMALL;
                     if (rv == CKR_OK) std::copy(result.begin(), result.end(), out);
                     if (rv == CKR_OK || !traits.stickyOperations) session.operations.erase(operation);
                     return rv;
                   });
}

CK_RV encryptInit(CK_SESSION_HANDLE session, CK_MECHANISM* mechanism, CK_OBJECT_HANDLE key) {
  return begin("C_EncryptInit", session, Use::Encrypt, mechanism, key);
}
CK_RV encrypt(CK_SESSION_HANDLE session, unsigned char* in, CK_ULONG inLength, unsigned char* out,
              CK_ULONG* outLength) {
  return finish("C_Encrypt", session, Use::Encrypt, {in, inLength}, out, outLength);
}
CK_RV decryptInit(CK_SESSION_HANDLE session, CK_MECHANISM* mechanism, CK_OBJECT_HANDLE key) {
  return begin("C_DecryptInit", session, Use::Decrypt, mechanism, key);
}
CK_RV decrypt(CK_SESSION_HANDLE session, unsigned char* in, CK_ULONG inLength, unsigned char* out,
              CK_ULONG* outLength) {
  return finish("C_Decrypt", session, Use::Decrypt, {in, inLength}, out, outLength);
}
CK_RV signInit(CK_SESSION_HANDLE session, CK_MECHANISM* mechanism, CK_OBJECT_HANDLE key) {
  return begin("C_SignInit", session, Use::Sign, mechanism, key);
}
CK_RV sign(CK_SESSION_HANDLE session, unsigned char* in, CK_ULONG inLength, unsigned char* out, CK_ULONG* outLength) {
  return finish("C_Sign", session, Use::Sign, {in, inLength}, out, outLength);
}
CK_RV verifyInit(CK_SESSION_HANDLE session, CK_MECHANISM* mechanism, CK_OBJECT_HANDLE key) {
  return begin("C_VerifyInit", session, Use::Verify, mechanism, key);
}
CK_RV verify(CK_SESSION_HANDLE handle, unsigned char* in, CK_ULONG inLength, unsigned char* signature,
             CK_ULONG length) {
  return inSession("C_Verify", handle, [&](Token& token, Session& session, const Plan&, const Traits&) -> CK_RV {
    const auto operation = session.operations.find(Use::Verify);
    if (operation == session.operations.end()) return CKR_OPERATION_NOT_INITIALIZED;
    Bytes none;
    const CK_RV rv = runOperation(token, operation->second, Use::Verify, {in, inLength}, {signature, length}, none);
    session.operations.erase(operation);
    return rv;
  });
}

CK_RV seedRandom(CK_SESSION_HANDLE session, unsigned char*, CK_ULONG) {
  return inSession("C_SeedRandom", session,
                   [](Token&, Session&, const Plan&, const Traits&) { return CKR_RANDOM_SEED_NOT_SUPPORTED; });
}

CK_RV generateRandom(CK_SESSION_HANDLE session, unsigned char* out, CK_ULONG length) {
  return inSession("C_GenerateRandom", session, [&](Token&, Session&, const Plan& plan, const Traits&) -> CK_RV {
    Bytes bytes = randomBytes(length);
    distort(bytes, plan);
    std::copy(bytes.begin(), bytes.end(), out);
    return CKR_OK;
  });
}

template <typename... Arguments>
CK_RV unsupported(Arguments...) {
  return CKR_FUNCTION_NOT_SUPPORTED;
}

CK_RV getFunctionList(CK_FUNCTION_LIST** list);

void nothing(CK_FUNCTION_LIST& l) {
  l.C_InitToken = unsupported, l.C_InitPIN = unsupported, l.C_SetPIN = unsupported;
  l.C_GetOperationState = unsupported, l.C_SetOperationState = unsupported, l.C_GetObjectSize = unsupported;
  l.C_EncryptUpdate = unsupported, l.C_EncryptFinal = unsupported, l.C_DecryptUpdate = unsupported;
  l.C_DecryptFinal = unsupported, l.C_DigestInit = unsupported, l.C_Digest = unsupported;
  l.C_DigestUpdate = unsupported, l.C_DigestKey = unsupported, l.C_DigestFinal = unsupported;
  l.C_SignUpdate = unsupported, l.C_SignFinal = unsupported, l.C_SignRecoverInit = unsupported;
  l.C_SignRecover = unsupported, l.C_VerifyUpdate = unsupported, l.C_VerifyFinal = unsupported;
  l.C_VerifyRecoverInit = unsupported, l.C_VerifyRecover = unsupported, l.C_DigestEncryptUpdate = unsupported;
  l.C_DecryptDigestUpdate = unsupported, l.C_SignEncryptUpdate = unsupported, l.C_DecryptVerifyUpdate = unsupported;
  l.C_WrapKey = unsupported, l.C_UnwrapKey = unsupported, l.C_GetFunctionStatus = unsupported;
  l.C_CancelFunction = unsupported, l.C_WaitForSlotEvent = unsupported;
}

CK_FUNCTION_LIST makeList() {
  CK_FUNCTION_LIST l = {};
  nothing(l);
  l.version = {2, 40};
  l.C_Initialize = initialize, l.C_Finalize = finalize, l.C_GetInfo = getInfo, l.C_GetFunctionList = getFunctionList;
  l.C_GetSlotList = getSlotList, l.C_GetSlotInfo = getSlotInfo, l.C_GetTokenInfo = getTokenInfo;
  l.C_GetMechanismList = getMechanismList, l.C_GetMechanismInfo = getMechanismInfo;
  l.C_OpenSession = openSession, l.C_CloseSession = closeSession, l.C_CloseAllSessions = closeAllSessions;
  l.C_GetSessionInfo = getSessionInfo, l.C_Login = login, l.C_Logout = logout;
  l.C_CreateObject = createObject, l.C_CopyObject = copyObject, l.C_DestroyObject = destroyObject;
  l.C_GetAttributeValue = getAttributeValue, l.C_SetAttributeValue = setAttributeValue;
  l.C_FindObjectsInit = findObjectsInit, l.C_FindObjects = findObjects, l.C_FindObjectsFinal = findObjectsFinal;
  l.C_GenerateKey = generateKey, l.C_GenerateKeyPair = generateKeyPair, l.C_DeriveKey = deriveKey;
  l.C_EncryptInit = encryptInit, l.C_Encrypt = encrypt, l.C_DecryptInit = decryptInit, l.C_Decrypt = decrypt;
  l.C_SignInit = signInit, l.C_Sign = sign, l.C_VerifyInit = verifyInit, l.C_Verify = verify;
  l.C_SeedRandom = seedRandom, l.C_GenerateRandom = generateRandom;
  return l;
}

CK_RV getFunctionList(CK_FUNCTION_LIST** list) {
  static CK_FUNCTION_LIST whole = makeList();
  static CK_FUNCTION_LIST holed = [] {
    CK_FUNCTION_LIST l = makeList();
    l.C_DeriveKey = nullptr, l.C_FindObjects = nullptr, l.C_Decrypt = nullptr;
    return l;
  }();
  const Plan plan = module().faults.enter("C_GetFunctionList");
  if (plan.rv) return *plan.rv;
  if (list == nullptr) return CKR_ARGUMENTS_BAD;
  *list = plan.null ? nullptr : plan.holes ? &holed : &whole;
  return CKR_OK;
}

}  // namespace
}  // namespace sallyport::mock

extern "C" __attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST** list) {
  return sallyport::mock::getFunctionList(list);
}
