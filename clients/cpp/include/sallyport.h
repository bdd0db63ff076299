// sallyport.h - the vault for C, and for what can call C. The same library as <sallyport/vault.h>, the same rules:
// calls block, any thread may call, a vault that restarts is connected to anew, keys can be used and not taken.
//
//     sallyport_vault *vault = NULL;
//     sallyport_key *key = NULL;
//     sallyport_connect("/run/sallyport/vault/vault.sock", 0, &vault);
//     sallyport_key_open(vault, "backup", 0, 0, &key);
//     unsigned char box[4 + SALLYPORT_BOX_OVERHEAD];
//     sallyport_box_item item = {.peer_name = "alice", .text = "text", .text_size = 4,
//                                .box = box, .box_size = sizeof box};
//     int code = sallyport_box(key, &item, 1);
//
// Every function that returns int returns a code below. A pointer that may be NULL says so; any other NULL is answered
// with SALLYPORT_BAD_ARGUMENT. See libsallyport(3).
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// 1 to 254: the vault's refusals, numbered and named as `Refusal` in proto/vault.capnp; a newer vault may have more.
// From 256 on: what can go wrong on this side.
enum sallyport_code {
  SALLYPORT_OK = 0,
  SALLYPORT_UNKNOWN_ENTRY = 1,
  SALLYPORT_UNKNOWN_KEY = 2,
  SALLYPORT_PEER_NOT_ALLOWED = 3,
  SALLYPORT_BAD_BOX = 4,
  SALLYPORT_BAD_SIZE = 5,
  SALLYPORT_LOW_ORDER_KEY = 6,
  SALLYPORT_RATE_LIMITED = 7,
  SALLYPORT_NONCE_UNAVAILABLE = 8,
  SALLYPORT_LOCKED = 9,
  SALLYPORT_TOO_MANY = 10,
  SALLYPORT_NOT_PERMITTED = 11,
  SALLYPORT_BAD_CONFIG = 12,
  SALLYPORT_BAD_NONCE = 13,
  SALLYPORT_TOO_LONG = 14,
  SALLYPORT_EXPIRED = 15,
  SALLYPORT_WRONG_KIND = 16,
  SALLYPORT_WRONG_VERSION = 17,
  SALLYPORT_BREAKER_OPEN = 18,
  SALLYPORT_NOT_RECORDED = 19,
  SALLYPORT_TOO_MANY_OBJECTS = 20,
  SALLYPORT_BAD_SIGNATURE = 21,
  SALLYPORT_BAD_DOMAIN = 22,
  SALLYPORT_HSM_UNAVAILABLE = 23,
  SALLYPORT_WRONG_PROTOCOL = 24,
  SALLYPORT_BLOCK_USED = 25,
  SALLYPORT_UNSPECIFIED = 255,
  SALLYPORT_CANT_CONNECT = 256,
  SALLYPORT_DISCONNECTED = 257,
  SALLYPORT_TIMED_OUT = 258,
  SALLYPORT_UNSUPPORTED = 259,
  SALLYPORT_PROTOCOL_ERROR = 260,
  SALLYPORT_VAULT_FAILED = 261,
  SALLYPORT_SELF_TEST_FAILED = 262,
  SALLYPORT_CLOSED = 263,
  SALLYPORT_BAD_ARGUMENT = 264,
  SALLYPORT_BUFFER_TOO_SMALL = 265,
  SALLYPORT_OUT_OF_MEMORY = 266,
  SALLYPORT_BROKEN = 267,
  // netd's refusals: 512 and the number of `NetRefusal` in proto/net.capnp.
  SALLYPORT_NET_UNSPECIFIED = 512,
  SALLYPORT_NET_UNKNOWN_NAME = 513,
  SALLYPORT_NET_NOT_A_CHANNEL = 514,
  SALLYPORT_NET_TIMED_OUT = 515,
  SALLYPORT_NET_UNREACHABLE = 516,
  SALLYPORT_NET_HANDSHAKE_FAILED = 517,
  SALLYPORT_NET_VAULT_REFUSED = 518,
  SALLYPORT_NET_TOO_BIG = 519,
  SALLYPORT_NET_CLOSED = 520,
  SALLYPORT_NET_TOO_MANY_OBJECTS = 521,
  SALLYPORT_NET_FAILED = 522,
  SALLYPORT_NET_SHUTTING_DOWN = 523,
  SALLYPORT_NET_WRONG_PROTOCOL = 524,
  SALLYPORT_NET_RESERVED_CODE = 525
};

enum sallyport_verb {
  SALLYPORT_VERB_BOX = 1,
  SALLYPORT_VERB_OPEN = 2,
  SALLYPORT_VERB_SIGN = 4,
  SALLYPORT_VERB_FRESH_NONCE = 8
};

#define SALLYPORT_PUBLIC_KEY_BYTES 32
#define SALLYPORT_NONCE_BYTES 24
#define SALLYPORT_FRESH_NONCE_BYTES 16
#define SALLYPORT_SIGNATURE_BYTES 64
#define SALLYPORT_BOX_OVERHEAD 16     // a box is so much longer than its text
#define SALLYPORT_SEALED_OVERHEAD 48  // a sealed box is

typedef struct sallyport_vault sallyport_vault;
typedef struct sallyport_key sallyport_key;

// The schema's name of a code, "notPermitted"; a sentence for people; and the sentence of this thread's last failure,
// with its detail (a path, an errno). Never NULL, not to be freed; the last one is good until this thread's next call.
const char* sallyport_error_name(int code);
const char* sallyport_strerror(int code);
const char* sallyport_last_error(void);
const char* sallyport_version(void);

// timeout_ms: how long a call waits for its next answer; 0: ten seconds.
int sallyport_connect(const char* path, uint32_t timeout_ms, sallyport_vault** vault);
// Ends the connection and sets *vault to NULL; with NULL there already: nothing. Keys that are still open answer
// SALLYPORT_CLOSED and have to be closed all the same.
void sallyport_disconnect(sallyport_vault** vault);
int sallyport_ping(sallyport_vault* vault);
int sallyport_public_key(sallyport_vault* vault, const char* key, uint8_t public_key[SALLYPORT_PUBLIC_KEY_BYTES]);
// The public halves of all versions that may open now, the active one first, one behind the other; `version`: the
// number of the active one (0: the vault is too old to tell), may be NULL. *count: how many `opening` has room for on
// entry, how many there are on return. Too little room: SALLYPORT_BUFFER_TOO_SMALL, and nothing is written but *count.
// There are never more than SALLYPORT_VERSIONS_MOST.
#define SALLYPORT_VERSIONS_MOST 64
int sallyport_public_keys(sallyport_vault* vault, const char* key, uint32_t* version, uint8_t* opening, size_t* count);

typedef struct sallyport_granted_key {
  const char* name;
  const char* kind;           // "x25519" or "ed25519"
  const uint8_t* public_key;  // 32 bytes; NULL: no version is active
  unsigned verbs;             // enum sallyport_verb, or-ed
  const char* const* grants;  // the [[grant]] sections that say so; ends with NULL
} sallyport_granted_key;
// What this caller may do: calls `each` for each key. What it is given is good until it returns. context may be NULL.
int sallyport_keys(sallyport_vault* vault, void (*each)(const sallyport_granted_key* key, void* context),
                   void* context);

// verbs: or-ed; 0: all that are granted. lease_ms: 0: the longest that policy allows.
int sallyport_key_open(sallyport_vault* vault, const char* name, unsigned verbs, uint64_t lease_ms,
                       sallyport_key** key);
// Gives the key back and sets *key to NULL; with NULL there already: nothing.
void sallyport_key_close(sallyport_key** key);
int sallyport_key_verbs(sallyport_key* key, unsigned* verbs);     // what was granted
int sallyport_key_lease(sallyport_key* key, uint64_t* lease_ms);  // what was given; 0: no end
int sallyport_key_renew(sallyport_key* key, uint64_t lease_ms);

// --- items -----------------------------------------------------------------------------------------------------------
//
// The verbs take any number of items (0 too) and judge each by itself: `code` of each is set. They return SALLYPORT_OK
// if all are, else the first code that isn't. Sizes of what is written are in and out: the room on entry, the length
// on return. Too little room: SALLYPORT_BUFFER_TOO_SMALL, the size says what is needed, and the vault wasn't asked.
// A peer is a name of the vault's [peers] or a key: exactly one of the two is not NULL.

typedef struct sallyport_box_item {
  const char* peer_name;
  const void* peer_key;
  size_t peer_key_size;
  const void* text;  // may be NULL if text_size is 0
  size_t text_size;
  uint8_t nonce[SALLYPORT_NONCE_BYTES];  // out
  void* box;                             // out
  size_t box_size;                       // in: room; out: text_size + SALLYPORT_BOX_OVERHEAD
  uint32_t version;                      // out: of our key
  int code;                              // out
} sallyport_box_item;

typedef struct sallyport_open_item {
  const char* peer_name;  // sealed boxes: peer and nonce are not looked at
  const void* peer_key;
  size_t peer_key_size;
  const void* nonce;
  size_t nonce_size;
  const void* box;
  size_t box_size;
  void* text;        // out; may be NULL if text_size is 0. It is a secret: wipe it (explicit_bzero) when it has served
  size_t text_size;  // in: room; out: the text's length, box_size less the overhead
  uint32_t version;  // out
  int code;          // out
} sallyport_open_item;

typedef struct sallyport_sign_item {
  const void* message;  // may be NULL if message_size is 0
  size_t message_size;
  uint8_t signature[SALLYPORT_SIGNATURE_BYTES];  // out
  uint32_t version;                              // out
  int code;                                      // out
} sallyport_sign_item;

typedef struct sallyport_verify_item {
  const void* public_key;
  size_t public_key_size;
  const void* message;  // may be NULL if message_size is 0
  size_t message_size;
  const void* signature;
  size_t signature_size;
  int code;  // out
} sallyport_verify_item;

int sallyport_box(sallyport_key* key, sallyport_box_item* items, size_t count);
int sallyport_open(sallyport_key* key, sallyport_open_item* items, size_t count);
int sallyport_open_sealed(sallyport_key* key, sallyport_open_item* items, size_t count);
int sallyport_sign(sallyport_key* key, sallyport_sign_item* items, size_t count);
int sallyport_verify(sallyport_vault* vault, sallyport_verify_item* items, size_t count);
// count values of 16 bytes, one behind the other, to `nonces`. At most 64.
int sallyport_fresh_nonces(sallyport_key* key, const char* domain, uint32_t count, uint8_t* nonces);

// --- channels of the peer protocol -----------------------------------------------------------------------------------
//
// Through this host's netd (the socket of [net]), entries with protocol = "peer". A channel belongs to one thread at a
// time: a call while another is under way is answered with SALLYPORT_BAD_ARGUMENT. See <sallyport/peer.h>.

typedef struct sallyport_peer_channel sallyport_peer_channel;
typedef struct sallyport_peer_listener sallyport_peer_listener;

enum sallyport_peer_status {
  SALLYPORT_PEER_COMPLETE = 0,  // the whole buffer, or all whole frames of one code that fit
  SALLYPORT_PEER_SLOW = 1,      // the time is over; what half a frame there is stays for the next call
  SALLYPORT_PEER_TOO_BIG = 2,   // the first frame is larger than the buffer: `needed`. Nothing is lost
  SALLYPORT_PEER_ENDED = 3,     // the peer's authenticated end, after `size` bytes
  SALLYPORT_PEER_IS_BROKEN = 4  // after `size` bytes the connection failed: `reason`
};

typedef struct sallyport_peer_received {
  size_t size;    // genuine bytes in the buffer, whatever the status is
  uint32_t code;  // of all of them
  int status;     // enum sallyport_peer_status
  uint32_t needed;
  char reason[32];  // the drop reason's name, send_given_up or receive_given_up; ends with NUL
} sallyport_peer_received;

// timeout_ms of connect and listen: how long a call waits for netd's answer; 0: ten seconds. For that of connect the
// peer must answer netd, too: SALLYPORT_TIMED_OUT if it doesn't.
int sallyport_peer_connect(const char* path, const char* name, uint32_t timeout_ms, sallyport_peer_channel** channel);
int sallyport_peer_listen(const char* path, const char* name, uint32_t timeout_ms, sallyport_peer_listener** listener);
// timeout_ms of accept and receive: 0 waits for ever.
int sallyport_peer_accept(sallyport_peer_listener* listener, uint32_t timeout_ms, sallyport_peer_channel** channel);
void sallyport_peer_unlisten(sallyport_peer_listener** listener);
// Any size, in frames of one code; size 0 is one empty frame (data may be NULL then). Waits for as long as the peer
// doesn't read. What the peer sends meanwhile netd reads ahead, up to max_frame_bytes and at least 1 MiB: if both sides
// send more and receive nothing, both wait without end. So receive meanwhile, or set a limit. SALLYPORT_BROKEN: the
// channel has failed. SALLYPORT_NET_RESERVED_CODE, SALLYPORT_NET_CLOSED (behind sallyport_peer_finish): nothing was
// sent, the channel goes on. SALLYPORT_DISCONNECTED: netd has ended, and the channel with it. SALLYPORT_TIMED_OUT: the
// limit below is over.
int sallyport_peer_send(sallyport_peer_channel* channel, const void* data, size_t size, uint32_t code);
// A limit for sallyport_peer_send and sallyport_peer_finish; 0, as at first: none. It counts from the last progress:
// that netd handed up to 64 KiB to the kernel. Then the channel is broken: the peer sees it truncated at once, what
// wasn't received yet is lost, and each later call tells "send_given_up".
int sallyport_peer_set_send_timeout(sallyport_peer_channel* channel, uint32_t timeout_ms);
// SALLYPORT_OK whenever there is a status.
int sallyport_peer_receive(sallyport_peer_channel* channel, void* buffer, size_t size, uint32_t timeout_ms,
                           sallyport_peer_received* received);
// Our direction's authenticated end; receiving goes on. Waits, and fails, as sallyport_peer_send.
int sallyport_peer_finish(sallyport_peer_channel* channel);
// Sends the end and closes; or closes without an end, so that the peer sees it broken. Both set *channel to NULL.
void sallyport_peer_close(sallyport_peer_channel** channel);
void sallyport_peer_abandon(sallyport_peer_channel** channel);
const char* sallyport_peer_status_name(int status);

#ifdef __cplusplus
}
#endif
