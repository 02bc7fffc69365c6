/**
 * Expected outcomes of calls with an argument at or above its limit.
 */
import type pg from "pg";
import { expect } from "vitest";
import type { LimitedCall } from "./limited-arguments.js";

/** Refused for its length: with the rule, and what it is. */
export async function expectRefused(client: pg.Client, { what, argument, over }: LimitedCall): Promise<void> {
  const error = await errorOf(client, over);
  expect(error, what).toMatchObject({
    code: "22023",
    hint: expect.stringMatching(/^Give an argument that obeys the rule/),
  });
  expect(error?.message, what).toMatch(tooLong(argument));
  expect(error?.message.length, `${what}: a message that can be read`).toBeLessThan(600);
}

/** Whatever it comes to, the argument is not too long. */
export async function expectTaken(client: pg.Client, { what, argument, at }: LimitedCall): Promise<void> {
  const error = await errorOf(client, at);
  if (error !== undefined) expect(error.message, what).not.toMatch(tooLong(argument));
}

function tooLong(argument: string): RegExp {
  return new RegExp(
    `: the argument ${argument} is (\\d+ bytes long|".*"( \\(\\d+ bytes\\))?|a list .*|an object .*), and must (be|have) .*(bytes|elements|values)`,
  );
}

/** In a transaction that is undone. */
async function errorOf(client: pg.Client, sql: string): Promise<pg.DatabaseError | undefined> {
  try {
    await client.query(`BEGIN; SET LOCAL statement_timeout = '60s'; ${sql}`);
    return undefined;
  } catch (error) {
    return error as pg.DatabaseError;
  } finally {
    await client.query("ROLLBACK");
  }
}
