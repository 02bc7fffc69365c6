/**
 * A function that runs with its owner's rights takes no collation by which different texts are equal: a role could make one, and take
 * the names of others for its own.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../support/gateway.js";

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
  await gateway.client.query(
    "CREATE COLLATION pg_temp.all_equal (provider = icu, locale = 'und-u-ks-level1', deterministic = false)",
  );
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

interface Definer {
  readonly name: string;
  readonly types: readonly string[];
}

const definers = async (): Promise<readonly Definer[]> =>
  (
    await gateway.client.query<Definer>(`
      SELECT p.proname AS name, ARRAY(SELECT format_type(t.oid, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS t (oid, nth) ORDER BY t.nth) AS types
        FROM pg_proc AS p
       WHERE p.pronamespace = 'hawser'::regnamespace AND p.prosecdef AND 'text'::regtype = ANY (p.proargtypes)
         AND EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = ANY ('{hawser_peer,hawser_nats,hawser_bridge}')
                        AND has_function_privilege(r.oid, p.oid, 'EXECUTE'))
       ORDER BY 1, 2`)
  ).rows;

it("refuses it, whichever argument has it", async () => {
  const found = await definers();
  expect(found.length).toBeGreaterThan(30);
  for (const { name, types } of found) {
    const given = types.map((type) => (type === "text" ? "'a' COLLATE pg_temp.all_equal" : `NULL::${type}`));
    const error = await gateway.errorOf(`SELECT FROM hawser.${name}(${given.join(", ")})`);
    // A pattern cannot be matched by such a collation, either.
    expect(error?.message, name).toMatch(
      /must have a deterministic one|nondeterministic collations are not supported|needs a value/,
    );
  }
});

it("takes any other", async () => {
  expect((await gateway.client.query(`SELECT hawser.unschedule('none' COLLATE "C") AS ended`)).rows).toEqual([
    { ended: false },
  ]);
});
