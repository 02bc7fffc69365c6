/**
 * Privileges that an installation reports as missing, and a check of its functions.
 */
import { expect } from "vitest";
import type { install } from "../../../src/operating/installation/index.js";
import { codeOf, deadGateway, login, refusal } from "./logins.js";

export const wrappersMissing = /^the foreign data wrappers litmus_pgnats_fdw and pgnats_fdw are missing/;
const eventTriggersMissing = /^the event triggers hawser_nats_server_follow and hawser_nats_server_drop are missing/;
const loginMissing = /^the login .*calls functions for NATS,? is missing/;
/** The missing privilege of a role that may not make the login. */
export const loginIsMissing = {
  what: expect.stringMatching(/^the login .*calls functions for NATS,? is missing, and "\w+" may not make/),
  meaning: "functions can be subscribed, but `hawser serve` cannot call them",
  remedy: expect.stringContaining("as a role that may make roles: run `hawser init`; or name another login"),
};
export const wrappersAndTriggers = [
  expect.stringMatching(wrappersMissing),
  expect.stringMatching(eventTriggersMissing),
];
export const onlySuperusers = [expect.stringMatching(loginMissing), ...wrappersAndTriggers];

type MissingPrivileges = Awaited<ReturnType<typeof install>>["missingPrivileges"];

/** Missing privileges, without those of the schema `hawser`. */
export function lacking(missingPrivileges: MissingPrivileges): string[] {
  return missingPrivileges.map(({ what }) => what).filter((what) => !what.includes("objects of Hawser's schemas"));
}

/** The SQL that a missing privilege names as its remedy for a superuser. */
export function remedyOf(missingPrivileges: MissingPrivileges, what: RegExp): string {
  const { remedy } = missingPrivileges.find((one) => what.test(one.what))!;
  return /^as (?:a superuser|the owner of the schema): (?:run `hawser init`, or )?(.*?)(?:, or name .*)?(?:; then run `hawser init` again)?$/.exec(
    remedy,
  )![1]!;
}

/** A call that goes as far as to the gateway, which is not there. */
export async function expectToReachDblink(
  superuserUrl: string,
  call = "SELECT nats_publish_text('a', 'b')",
): Promise<void> {
  await deadGateway(superuserUrl);
  await using caller = await login(superuserUrl, "IN ROLE hawser_nats");
  expect(await refusal(caller.url, call)).toMatchObject({
    code: "08001",
    detail: expect.stringContaining("127.0.0.1"),
  });
  await using stranger = await login(superuserUrl);
  expect(await codeOf(stranger.url, call)).toBe("42501");
}
