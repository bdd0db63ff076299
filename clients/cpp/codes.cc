// codes.cc - the names and sentences of sallyport::client::Code, held against the schema by the compiler.
// Part of: libsallyport (the caller's process).
#include "clients/cpp/codes.h"

namespace sallyport::client {

namespace {

struct Entry {
  Code code;
  const char* name;
  const char* sentence;
};

constexpr Entry ENTRIES[] = {
    {Code::ok, "ok", "done"},
    {Code::unknownEntry, "unknownEntry", "the configuration has no entry of this name"},
    {Code::unknownKey, "unknownKey", "the vault has no key of this name"},
    {Code::peerNotAllowed, "peerNotAllowed", "the peer is not one that policy allows here"},
    {Code::badBox, "badBox", "the box doesn't open: it was changed, or is of another key, peer or nonce"},
    {Code::badSize, "badSize", "a key, nonce, box or signature has the wrong length"},
    {Code::lowOrderKey, "lowOrderKey", "the public key is one that gives no secrecy"},
    {Code::rateLimited, "rateLimited", "more than policy allows a second: try later"},
    {Code::nonceUnavailable, "nonceUnavailable", "the vault can't make a provably fresh nonce: look at its status"},
    {Code::locked, "locked", "the key is locked"},
    {Code::tooMany, "tooMany", "more than 64 items in one call"},
    {Code::notPermitted, "notPermitted", "policy doesn't grant this to this caller"},
    {Code::badConfig, "badConfig", "not a valid configuration"},
    {Code::badNonce, "badNonce", "not a nonce of an application's box"},
    {Code::tooLong, "tooLong", "longer than policy allows, or than fits one message"},
    {Code::expired, "expired", "the lease is over, or the grant was revoked"},
    {Code::wrongKind, "wrongKind", "a key of this kind can't do that"},
    {Code::wrongVersion, "wrongVersion", "no version of the key is in a state that allows this"},
    {Code::breakerOpen, "breakerOpen", "too many boxes of this caller didn't open: wait, and find out why"},
    {Code::notRecorded, "notRecorded", "the audit log can't be written, so nothing was done"},
    {Code::tooManyObjects, "tooManyObjects", "this connection holds as many keys as one may: close some"},
    {Code::badSignature, "badSignature", "the signature is not of this message and key"},
    {Code::badDomain, "badDomain", "policy lists no such domain for fresh nonces"},
    {Code::hsmUnavailable, "hsmUnavailable", "the key's token doesn't answer: try later, tell the operator"},
    {Code::wrongProtocol, "wrongProtocol", "the entry speaks another protocol, or the same in another mode"},
    {Code::blockUsed, "blockUsed", "a connection was opened with this block before"},
    {Code::unspecified, "unspecified", "refused without a reason"},
    {Code::cantConnect, "cantConnect", "can't connect"},
    {Code::disconnected, "disconnected", "the daemon closed the connection before it answered"},
    {Code::timedOut, "timedOut", "the daemon didn't answer in time"},
    {Code::unsupported, "unsupported",
     "who serves this socket doesn't know the call: is it the [vault] socket, or for channels the [net] socket?"},
    {Code::protocolError, "protocolError", "who serves this socket doesn't speak its protocol"},
    {Code::vaultFailed, "vaultFailed", "the daemon failed: its log tells more"},
    {Code::selfTestFailed, "selfTestFailed", "the vault's self-test failed"},
    {Code::closed, "closed", "it was closed by this program"},
    {Code::badArgument, "badArgument", "an argument that can't be"},
    {Code::bufferTooSmall, "bufferTooSmall", "the buffer is too small for the answer"},
    {Code::outOfMemory, "outOfMemory", "out of memory"},
    {Code::broken, "broken", "the channel is broken"},
    {Code::netUnspecified, "netUnspecified", "netd refused without a reason"},
    {Code::netUnknownName, "netUnknownName", "netd has no entry of this name"},
    {Code::netNotAChannel, "netNotAChannel", "the entry's service is not \"channel\""},
    {Code::netTimedOut, "netTimedOut", "nothing happened in the time given"},
    {Code::netUnreachable, "netUnreachable", "the other side can't be reached"},
    {Code::netHandshakeFailed, "netHandshakeFailed",
     "the other side closed during the handshake, or isn't what the entry says"},
    {Code::netVaultRefused, "netVaultRefused", "our own vault refused: status tells why"},
    {Code::netTooBig, "netTooBig", "longer than the protocol or the entry allows"},
    {Code::netClosed, "netClosed", "our direction has ended"},
    {Code::netTooManyObjects, "netTooManyObjects", "netd has as many channels for us as it may"},
    {Code::netFailed, "netFailed", "netd failed: its log tells more"},
    {Code::netShuttingDown, "netShuttingDown", "netd is shutting down"},
    {Code::netWrongProtocol, "netWrongProtocol", "the entry speaks another protocol"},
    {Code::netReservedCode, "netReservedCode", "the code that is the protocol's own: 0xFFFFFFFF"},
};

constexpr const Entry* entryOf(Code code) {
  for (const Entry& entry : ENTRIES) {
    if (entry.code == code) return &entry;
  }
  return nullptr;
}

std::string sentenceOf(Code code, const std::string& detail) {
  std::string text = std::string(name(code)) + ": " + describe(code);
  if (!detail.empty()) text += " (" + detail + ")";
  return text;
}

// The numbers are the schema's. A new Refusal gets a Code here.
#define SAME(ours, schemas) static_assert(codeOf(proto::Refusal::schemas) == Code::ours)
SAME(unspecified, UNSPECIFIED);
SAME(unknownEntry, UNKNOWN_ENTRY);
SAME(unknownKey, UNKNOWN_KEY);
SAME(peerNotAllowed, PEER_NOT_ALLOWED);
SAME(badBox, BAD_BOX);
SAME(badSize, BAD_SIZE);
SAME(lowOrderKey, LOW_ORDER_KEY);
SAME(rateLimited, RATE_LIMITED);
SAME(nonceUnavailable, NONCE_UNAVAILABLE);
SAME(locked, LOCKED);
SAME(tooMany, TOO_MANY);
SAME(notPermitted, NOT_PERMITTED);
SAME(badConfig, BAD_CONFIG);
SAME(badNonce, BAD_NONCE);
SAME(tooLong, TOO_LONG);
SAME(expired, EXPIRED);
SAME(wrongKind, WRONG_KIND);
SAME(wrongVersion, WRONG_VERSION);
SAME(breakerOpen, BREAKER_OPEN);
SAME(notRecorded, NOT_RECORDED);
SAME(tooManyObjects, TOO_MANY_OBJECTS);
SAME(badSignature, BAD_SIGNATURE);
SAME(badDomain, BAD_DOMAIN);
SAME(hsmUnavailable, HSM_UNAVAILABLE);
SAME(wrongProtocol, WRONG_PROTOCOL);
SAME(blockUsed, BLOCK_USED);
#undef SAME

}  // namespace

const char* name(Code code) noexcept {
  const Entry* entry = entryOf(code);
  return entry != nullptr ? entry->name : "unknown";
}

const char* describe(Code code) noexcept {
  const Entry* entry = entryOf(code);
  return entry != nullptr ? entry->sentence : "refused for a reason that this library is too old to know";
}

Error::Error(Code code, const std::string& detail) : std::runtime_error(sentenceOf(code, detail)), code_(code) {}

}  // namespace sallyport::client
