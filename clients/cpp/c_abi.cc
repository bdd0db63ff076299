// c_abi.cc - include/sallyport.h over the C++ API. Part of: libsallyport (the caller's process).
// No exception leaves this file: every function is one call of guarded().
#include <algorithm>

#include "clients/cpp/c_guard.h"
#include "clients/cpp/include/sallyport.h"

namespace client = sallyport::client;
using client::Code;
using client::View;
using namespace sallyport::client::c_abi;

struct sallyport_vault {
  client::Vault vault;
};
struct sallyport_key {
  client::Key key;
};

namespace {

constexpr Code NOT_SENT = Code::ok;  // of an item that asks for nothing yet
constexpr uint32_t DEFAULT_TIMEOUT_MS = 10'000;

template <typename Item>
bool hasPeer(const Item& item) {
  return (item.peer_name != nullptr) != (item.peer_key != nullptr);
}
template <typename Item>
client::Peer peerOf(const Item& item) {
  if (item.peer_name != nullptr) return client::Peer::named(item.peer_name);
  return client::Peer::key(viewOf(item.peer_key, item.peer_key_size));
}

// Is there room for `needed` bytes at `buffer`? `room` becomes what is needed.
Code checkRoom(const void* buffer, size_t& room, size_t needed) {
  const bool fits = room >= needed && readable(buffer, needed);
  room = needed;
  return fits ? NOT_SENT : Code::bufferTooSmall;
}

// Asks for those items that `check` finds nothing wrong with, and hands each outcome to `take`.
template <typename Request, typename Item, typename Check, typename Make, typename Ask, typename Take>
int forEach(Item* items, size_t count, Check&& check, Make&& make, Ask&& ask, Take&& take) noexcept {
  if (items == nullptr && count != 0) return failed(Code::badArgument);
  const std::span<Item> all(items, count);
  const int code = guarded([&] {
    std::vector<Request> requests;
    std::vector<Item*> asked;
    for (Item& item : all) {
      item.code = static_cast<int>(check(item));
      if (item.code != SALLYPORT_OK) continue;
      requests.push_back(make(item));
      asked.push_back(&item);
    }
    auto outcomes = ask(requests);
    for (size_t i = 0; i < asked.size(); ++i) take(*asked[i], outcomes[i]);
  });
  if (code != SALLYPORT_OK) {
    for (Item& item : all) item.code = code;
    return code;
  }
  const auto bad = std::ranges::find_if(all, [](const Item& item) { return item.code != SALLYPORT_OK; });
  return bad == all.end() ? SALLYPORT_OK : failed(static_cast<Code>(bad->code));
}

int openItems(sallyport_open_item* items, size_t count, size_t overhead, bool sealed, client::Key* key) {
  if (key == nullptr) return failed(Code::badArgument);
  const auto check = [&](sallyport_open_item& item) {
    if (!readable(item.box, item.box_size)) return Code::badArgument;
    if (!sealed && (!hasPeer(item) || !readable(item.nonce, item.nonce_size))) return Code::badArgument;
    if (item.box_size < overhead) return Code::badSize;
    return checkRoom(item.text, item.text_size, item.box_size - overhead);
  };
  const auto take = [](sallyport_open_item& item, client::Outcome<client::Opened>& outcome) {
    item.code = static_cast<int>(outcome.code());
    if (!outcome) return;
    const auto text = outcome.value().text.bytes();
    if (text.size() != item.text_size) throw client::Error(Code::protocolError);
    copyOut(item.text, text);
    item.version = outcome.value().version;
  };
  if (sealed) {
    return forEach<View>(
        items, count, check, [](const auto& item) { return viewOf(item.box, item.box_size); },
        [&](const auto& requests) { return key->openSealedEach(requests); }, take);
  }
  return forEach<client::OpenItem>(
      items, count, check,
      [](const auto& item) {
        return client::OpenItem{peerOf(item), viewOf(item.nonce, item.nonce_size), viewOf(item.box, item.box_size)};
      },
      [&](const auto& requests) { return key->openEach(requests); }, take);
}

unsigned maskOf(std::span<const client::Verb> verbs) {
  unsigned mask = 0;
  for (const client::Verb verb : verbs) mask |= 1U << static_cast<unsigned>(verb);
  return mask;
}

}  // namespace

const char* sallyport_error_name(int code) { return client::name(static_cast<Code>(code)); }
const char* sallyport_strerror(int code) { return client::describe(static_cast<Code>(code)); }
const char* sallyport_last_error(void) { return lastError(); }
const char* sallyport_version(void) { return SALLYPORT_VERSION; }

int sallyport_connect(const char* path, uint32_t timeout_ms, sallyport_vault** vault) {
  return guarded([&] {
    require(path != nullptr && vault != nullptr);
    *vault = nullptr;
    client::Options options;
    options.timeout = std::chrono::milliseconds(timeout_ms != 0 ? timeout_ms : DEFAULT_TIMEOUT_MS);
    *vault = new sallyport_vault{client::Vault::connect(path, options)};
  });
}

void sallyport_disconnect(sallyport_vault** vault) {
  if (vault == nullptr || *vault == nullptr) return;
  (*vault)->vault.close();
  delete std::exchange(*vault, nullptr);
}

int sallyport_ping(sallyport_vault* vault) {
  return guarded([&] {
    require(vault != nullptr);
    vault->vault.ping();
  });
}

int sallyport_public_key(sallyport_vault* vault, const char* key, uint8_t public_key[SALLYPORT_PUBLIC_KEY_BYTES]) {
  return guarded([&] {
    require(vault != nullptr && key != nullptr && public_key != nullptr);
    copyOut(public_key, vault->vault.publicKey(key));
  });
}

int sallyport_public_keys(sallyport_vault* vault, const char* key, uint32_t* version, uint8_t* opening, size_t* count) {
  return guarded([&] {
    require(vault != nullptr && key != nullptr && count != nullptr && (opening != nullptr || *count == 0));
    const client::PublicKeys keys = vault->vault.publicKeys(key);
    const size_t room = std::exchange(*count, keys.opening.size());
    if (room < keys.opening.size()) throw client::Error(client::Code::bufferTooSmall);
    for (const client::PublicKey& each : keys.opening) {
      copyOut(opening, each);
      opening += each.size();
    }
    if (version != nullptr) *version = keys.version;
  });
}

int sallyport_keys(sallyport_vault* vault, void (*each)(const sallyport_granted_key*, void*), void* context) {
  return guarded([&] {
    require(vault != nullptr && each != nullptr);
    for (const client::GrantedKey& key : vault->vault.keys()) {
      std::vector<const char*> grants;
      for (const std::string& grant : key.grants) grants.push_back(grant.c_str());
      grants.push_back(nullptr);
      const sallyport_granted_key out{
          .name = key.name.c_str(),
          .kind = key.kind.c_str(),
          .public_key = key.publicKey ? reinterpret_cast<const uint8_t*>(key.publicKey->data()) : nullptr,
          .verbs = maskOf(key.verbs),
          .grants = grants.data()};
      each(&out, context);
    }
  });
}

int sallyport_key_open(sallyport_vault* vault, const char* name, unsigned verbs, uint64_t lease_ms,
                       sallyport_key** key) {
  return guarded([&] {
    require(vault != nullptr && name != nullptr && key != nullptr && lease_ms <= INT64_MAX);
    *key = nullptr;
    std::vector<client::Verb> wanted;
    for (unsigned i = 0; i < 32; ++i) {
      if ((verbs >> i & 1) != 0) wanted.push_back(static_cast<client::Verb>(i));
    }
    *key = new sallyport_key{vault->vault.key(name, wanted, std::chrono::milliseconds(lease_ms))};
  });
}

void sallyport_key_close(sallyport_key** key) {
  if (key == nullptr || *key == nullptr) return;
  (*key)->key.close();
  delete std::exchange(*key, nullptr);
}

int sallyport_key_verbs(sallyport_key* key, unsigned* verbs) {
  return guarded([&] {
    require(key != nullptr && verbs != nullptr);
    *verbs = maskOf(key->key.verbs());
  });
}

int sallyport_key_lease(sallyport_key* key, uint64_t* lease_ms) {
  return guarded([&] {
    require(key != nullptr && lease_ms != nullptr);
    *lease_ms = static_cast<uint64_t>(key->key.lease().count());
  });
}

int sallyport_key_renew(sallyport_key* key, uint64_t lease_ms) {
  return guarded([&] {
    require(key != nullptr && lease_ms <= INT64_MAX);
    key->key.renew(std::chrono::milliseconds(lease_ms));
  });
}

int sallyport_box(sallyport_key* key, sallyport_box_item* items, size_t count) {
  if (key == nullptr) return failed(Code::badArgument);
  return forEach<client::BoxItem>(
      items, count,
      [](sallyport_box_item& item) {
        if (!hasPeer(item) || !readable(item.text, item.text_size)) return Code::badArgument;
        if (item.text_size > SIZE_MAX - SALLYPORT_BOX_OVERHEAD) return Code::tooLong;
        return checkRoom(item.box, item.box_size, item.text_size + SALLYPORT_BOX_OVERHEAD);
      },
      [](const auto& item) {
        return client::BoxItem{peerOf(item), viewOf(item.text, item.text_size)};
      },
      [&](const auto& requests) { return key->key.boxEach(requests); },
      [](sallyport_box_item& item, client::Outcome<client::Boxed>& outcome) {
        item.code = static_cast<int>(outcome.code());
        if (!outcome) return;
        const client::Boxed& boxed = outcome.value();
        if (boxed.box.size() != item.box_size) throw client::Error(Code::protocolError);
        copyOut(item.nonce, boxed.nonce);
        copyOut(item.box, boxed.box);
        item.version = boxed.version;
      });
}

int sallyport_open(sallyport_key* key, sallyport_open_item* items, size_t count) {
  return openItems(items, count, SALLYPORT_BOX_OVERHEAD, false, key != nullptr ? &key->key : nullptr);
}

int sallyport_open_sealed(sallyport_key* key, sallyport_open_item* items, size_t count) {
  return openItems(items, count, SALLYPORT_SEALED_OVERHEAD, true, key != nullptr ? &key->key : nullptr);
}

int sallyport_sign(sallyport_key* key, sallyport_sign_item* items, size_t count) {
  if (key == nullptr) return failed(Code::badArgument);
  return forEach<View>(
      items, count,
      [](const auto& item) { return readable(item.message, item.message_size) ? NOT_SENT : Code::badArgument; },
      [](const auto& item) { return viewOf(item.message, item.message_size); },
      [&](const auto& requests) { return key->key.signEach(requests); },
      [](sallyport_sign_item& item, client::Outcome<client::Signed>& outcome) {
        item.code = static_cast<int>(outcome.code());
        if (!outcome) return;
        copyOut(item.signature, outcome.value().signature);
        item.version = outcome.value().version;
      });
}

int sallyport_verify(sallyport_vault* vault, sallyport_verify_item* items, size_t count) {
  if (vault == nullptr) return failed(Code::badArgument);
  return forEach<client::VerifyItem>(
      items, count,
      [](const auto& item) {
        const bool whole = readable(item.public_key, item.public_key_size) &&
                           readable(item.message, item.message_size) && readable(item.signature, item.signature_size);
        return whole ? NOT_SENT : Code::badArgument;
      },
      [](const auto& item) {
        return client::VerifyItem{viewOf(item.public_key, item.public_key_size),
                                  viewOf(item.message, item.message_size), viewOf(item.signature, item.signature_size)};
      },
      [&](const auto& requests) { return vault->vault.verifyEach(requests); },
      [](sallyport_verify_item& item, Code code) { item.code = static_cast<int>(code); });
}

int sallyport_fresh_nonces(sallyport_key* key, const char* domain, uint32_t count, uint8_t* nonces) {
  return guarded([&] {
    require(key != nullptr && domain != nullptr && (nonces != nullptr || count == 0));
    for (const client::FreshNonce& nonce : key->key.freshNonces(domain, count)) {
      copyOut(nonces, nonce);
      nonces += SALLYPORT_FRESH_NONCE_BYTES;
    }
  });
}
