// index.ts - @sallyport/client: keys that stay in Sallyport's vault, and channels of the peer protocol, for node.
export { type Code, NET_REFUSALS, REFUSALS, SallyportError } from "./errors.js";
export { connectPeer, listenPeer, PeerChannel, PeerListener, type PeerReceived, type PeerStatus } from "./peer.js";
export { type Boxed, connect, type GrantedKey, Key, type KeyOptions, type Opened, type Options, type Outcome, type Peer,
  type PublicKeys, type Signed, Vault, type Verb } from "./vault.js";
