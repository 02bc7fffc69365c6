/**
 * An operator of NATS: makes accounts and users, as nsc does, and the configuration of a server that trusts it.
 */
import { nkeys } from "@nats-io/transport-node";

type Claims = Readonly<Record<string, unknown>>;
type Key = ReturnType<typeof nkeys.createUser>;

/** Times in a user's JWT, in seconds since 1970. */
export interface UserTimes {
  /** When it ends. */
  readonly exp?: number;
  /** From when on it is valid. */
  readonly nbf?: number;
}

/** An operator with one account. */
export class NatsOperator {
  readonly #operator = nkeys.createOperator();
  readonly #account = nkeys.createAccount();
  /** The same each time: a server takes no other one while it runs. */
  readonly #jwt = jwt(this.#operator, this.#operator.getPublicKey(), { nats: { type: "operator", version: 2 } });

  /** The configuration of a server in operator mode, its one account in memory. @param revoked users that it knows as such */
  config(revoked: readonly Key[] = []): string {
    const account = this.#account.getPublicKey();
    const revocations = Object.fromEntries(revoked.map((user) => [user.getPublicKey(), now()]));
    const limits = { subs: -1, data: -1, payload: -1, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 };
    const ofAccount = jwt(this.#operator, account, { nats: { type: "account", version: 2, limits, revocations } });
    return `operator: ${this.#jwt}\nresolver: MEMORY\nresolver_preload: { ${account}: ${ofAccount} }\n`;
  }

  /** The content of a `.creds` file. @param signer who signs instead of the account */
  creds(user: Key, times: UserTimes = {}, signer: Key = this.#account): string {
    const nats = { type: "user", version: 2, subs: -1, data: -1, payload: -1, pub: {}, sub: {} };
    return credsFile(jwt(signer, user.getPublicKey(), { ...times, nats }), user);
  }
}

/** The file as nsc writes it. */
export function credsFile(userJwt: string, user: Key): string {
  return `-----BEGIN NATS USER JWT-----
${userJwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.
NKEYs are sensitive and should be treated as secrets.

-----BEGIN USER NKEY SEED-----
${Buffer.from(user.getSeed()).toString()}
------END USER NKEY SEED------

*************************************************************
`;
}

/** Seconds since 1970. */
export function now(): number {
  return Math.floor(Date.now() / 1000);
}

function jwt(issuer: Key, subject: string, claims: Claims): string {
  const part = (value: Claims): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const body = { jti: nkeys.createUser().getPublicKey(), iat: now(), iss: issuer.getPublicKey(), sub: subject };
  const signed = `${part({ typ: "JWT", alg: "ed25519-nkey" })}.${part({ ...body, name: "test", ...claims })}`;
  return `${signed}.${Buffer.from(issuer.sign(Buffer.from(signed))).toString("base64url")}`;
}
