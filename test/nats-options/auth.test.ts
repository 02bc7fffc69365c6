import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { authModes, type NatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { resolveAuth } from "../../src/nats/connections/server-options.js";
import { ValidatorDatabase } from "./validator-database.js";

const credentials = [
  "creds_path",
  "username",
  "password_path",
  "password",
  "nkey_seed_path",
  "nkey_seed",
  "token_path",
  "token",
] as const;

/** Every set of credentials, from none to all. */
const combinations: NatsServerOptions[] = Array.from({ length: 2 ** credentials.length }, (_, bits) =>
  Object.fromEntries(credentials.filter((_, position) => bits & (1 << position)).map((name) => [name, `my ${name}`])),
);

let database: ValidatorDatabase;
beforeAll(async () => {
  database = await ValidatorDatabase.create();
});
afterAll(() => database[Symbol.asyncDispose]());

describe("the authentication mode", () => {
  it("is the same in TypeScript and SQL for each of the 256 sets of credentials", async () => {
    const { rows } = await database.client.query<{ mode: string }>(
      `SELECT hawser.nats_auth_mode(options) AS mode
       FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS given (options, position) ORDER BY position`,
      [JSON.stringify(combinations)],
    );
    expect(combinations).toHaveLength(256);
    expect(rows.map(({ mode }) => mode)).toEqual(combinations.map((options) => resolveAuth(options).mode));
    expect(new Set(rows.map(({ mode }) => mode))).toEqual(new Set(Object.keys(authModes)));
  });

  it("follows the documented order, in which the first match wins", () => {
    const left = new Set<string>(credentials);
    const won = Object.keys(authModes).map(() => {
      const options = Object.fromEntries([...left].map((name) => [name, "x"]));
      const { mode, ...taken } = resolveAuth(options);
      // What the mode took goes away, but for the user name, which two modes share.
      for (const name of Object.keys(taken)) {
        if (name !== "username") {
          left.delete(name);
        }
      }
      return mode;
    });
    expect(won).toEqual([
      "creds_path",
      "nkey_seed_path",
      "nkey_seed",
      "token_path",
      "token",
      "user_password_path",
      "user_password",
      "none",
    ]);
  });

  it("comes with the options that it takes and no others", () => {
    expect(resolveAuth({ host: "h", username: "", password: "p", password_path: "/p" })).toEqual({
      mode: "user_password_path",
      username: "",
      password_path: "/p",
    });
    expect(resolveAuth({ username: "alone", tls_cert_path: "/c", tls_key_path: "/k" })).toEqual({ mode: "none" });
  });
});
