// index.ts - @sallyport/client: keys that stay in Sallyport's vault, for node.
export { type Code, REFUSALS, SallyportError } from "./errors.js";
export { type Boxed, connect, type GrantedKey, Key, type KeyOptions, type Opened, type Options, type Outcome, type Peer,
  type PublicKeys, type Signed, Vault, type Verb } from "./vault.js";
