import { describe, expect, it } from "vitest";
import { storeFailure } from "../../src/jobs-and-peers/store/index.js";

/** An answer of the server, as node-postgres has it. */
const answer = (code: string, message: string) => Object.assign(new Error(message), { severity: "FATAL", code });

describe("an error of Postgres", () => {
  it.each([
    ["28P01", 'password authentication failed for user "a"', "Repair the user or the password in the URL"],
    ["28000", 'no pg_hba.conf entry for host "::1"', "an entry in pg_hba.conf of the server"],
    ["3D000", 'database "b" does not exist', "Create the database"],
  ])("by which the server refuses the login (%s) is not retryable, and says what to do", (code, message, remedy) => {
    const error = storeFailure("open a session with Postgres", answer(code, message));
    expect(error).toMatchObject({ code: "store_failed", retryable: false, remedy: expect.stringContaining(remedy) });
  });

  it.each([
    ["57P03", "the database system is starting up"],
    ["53300", "sorry, too many clients already"],
    ["25006", "cannot execute INSERT in a read-only transaction"],
  ])("that may be over soon (%s) is retryable", (code, message) => {
    expect(storeFailure("store a message", answer(code, message)).retryable).toBe(true);
  });

  it.each([
    ["25P04", "terminating connection due to transaction timeout", "transaction_timeout"],
    ["25P03", "terminating connection due to idle-in-transaction timeout", "idle_in_transaction_session_timeout"],
    ["57P05", "terminating connection due to idle-session timeout", "idle_session_timeout"],
    ["25006", "cannot execute INSERT in a read-only transaction", "default_transaction_read_only"],
  ])("names the setting that is its cause (%s), and says what to do", (code, message, setting) => {
    const text = storeFailure("store a message", answer(code, message)).message;
    expect(text).toContain(`could not store a message: ${message}; `);
    expect(text).toContain(setting);
    expect(text).toMatch(/ALTER ROLE|to off/);
  });
});
