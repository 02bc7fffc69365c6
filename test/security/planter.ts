/**
 * A role without rights that puts in front of Hawser's statements whatever Postgres would call in place of what pg_catalog
 * has: operators, functions, aggregates, casts.
 */
import type pg from "pg";

/** The schemas in which the role may create: those that a login without a path of its own looks into. */
export interface Planted {
  readonly operators: number;
  readonly functions: number;
  readonly aggregates: number;
  readonly casts: number;
}

/** Log text of a planted function. */
export const marker = "PLANTED OBJECT CALLED";

/** Types of arguments: those of the statements, of the catalogs that they read, and what literals become. */
const types = [
  ...[
    "bool",
    '"char"',
    "name",
    "int2",
    "int4",
    "int8",
    "float8",
    "numeric",
    "text",
    "varchar",
    "bytea",
    "uuid",
    "inet",
  ],
  ...["oid", "regproc", "regprocedure", "regclass", "regtype", "regrole", "regnamespace", "xid", "xid8", "pg_lsn"],
  ...["json", "jsonb", "timestamptz", "interval"],
  ...["bool[]", '"char"[]', "name[]", "int2[]", "int4[]", "int8[]", "text[]", "oid[]", "bytea[]"],
];

const operators = [
  ...["=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||", "@>", "<@", "&&", "->", "->>", "~", "!~", "~~"],
];

/** In two places of a function of two: the types that arguments and literals of the statements mostly have. */
const oftenTypes = ["name", "int4", "int8", "text", "oid", "jsonb"];

/** Makes everything in one schema. The client is the role's, and has gone through {@link prepare}. */
export async function plant(client: pg.ClientBase, schema: string, functionNames: readonly string[]): Promise<Planted> {
  const count = async (call: string, values: unknown[]): Promise<number> =>
    (await client.query<{ made: number }>(`SELECT pg_temp.${call} AS made`, values)).rows[0]!.made;
  const made = { operators: 0, functions: 0, aggregates: 0, casts: 0 };
  // Each a transaction of its own: one with many objects gets slower with each of them.
  for (const type of types) {
    made.operators += await count("prefix_operators($1, $2)", [schema, type]);
    for (let at = 0; at < types.length; at += 8)
      made.operators += await count("operators($1, $2, $3, $4)", [schema, type, types.slice(at, at + 8), operators]);
  }
  await count("steps($1, $2)", [schema, types]);
  for (const name of functionNames) {
    const isAggregate = (await count("is_aggregate($1)", [name])) === 1;
    made[isAggregate ? "aggregates" : "functions"] += await count("functions($1, $2, $3, $4, $5)", [
      ...[schema, name, isAggregate, types, oftenTypes],
    ]);
  }
  made.casts = await plantCasts(client, schema);
  return made;
}

/** Makes only the types and casts in a schema: the rest {@link copyPlanted} copies. */
export async function plantCasts(client: pg.ClientBase, schema: string): Promise<number> {
  return (await client.query<{ made: number }>("SELECT pg_temp.casts($1) AS made", [schema])).rows[0]!.made;
}

/**
 * Copies the operators, functions and aggregates of one schema to another one, in the catalogs, which takes a hundredth of the time
 * of making them. The client is a superuser's.
 */
export async function copyPlanted(
  client: pg.ClientBase,
  from: string,
  to: string,
  functionNames: readonly string[],
): Promise<Omit<Planted, "casts">> {
  await client.query("SET allow_system_table_mods = on");
  const columnsOf = async (catalog: string, ...others: string[]): Promise<string> => {
    const { rows } = await client.query<{ columns: string }>(
      `SELECT string_agg(quote_ident(attname), ', ') AS columns FROM pg_attribute
        WHERE attrelid = $1::regclass AND attnum > 0 AND attname <> ALL ($2)`,
      [catalog, others],
    );
    return rows[0]!.columns;
  };
  const [operator, proc, aggregate] = [
    await columnsOf("pg_operator", "oid", "oprnamespace"),
    await columnsOf("pg_proc", "oid", "pronamespace"),
    await columnsOf("pg_aggregate", "aggfnoid"),
  ];
  const operators = await client.query(`
    INSERT INTO pg_operator (oid, oprnamespace, ${operator})
    SELECT pg_nextoid('pg_operator', 'oid', 'pg_operator_oid_index'), '${to}'::regnamespace, ${operator}
      FROM pg_operator WHERE oprnamespace = '${from}'::regnamespace`);
  await client.query(
    `CREATE TEMP TABLE copied AS
     SELECT p.oid AS old_oid, pg_nextoid('pg_proc', 'oid', 'pg_proc_oid_index') AS new_oid
       FROM pg_proc AS p WHERE p.pronamespace = '${from}'::regnamespace AND p.proname = ANY ($1)`,
    [functionNames],
  );
  const functions = await client.query(`
    INSERT INTO pg_proc (oid, pronamespace, ${proc})
    SELECT c.new_oid, '${to}'::regnamespace, ${proc} FROM pg_proc AS p JOIN copied AS c ON c.old_oid = p.oid`);
  const aggregates = await client.query(`
    INSERT INTO pg_aggregate (aggfnoid, ${aggregate})
    SELECT c.new_oid, ${aggregate} FROM pg_aggregate AS a JOIN copied AS c ON c.old_oid = a.aggfnoid`);
  await client.query("DROP TABLE copied");
  return {
    operators: operators.rowCount!,
    functions: functions.rowCount! - aggregates.rowCount!,
    aggregates: aggregates.rowCount!,
  };
}

/** Makes what {@link plant} calls, in the role's own session. */
export async function prepare(client: pg.ClientBase): Promise<void> {
  await client.query("SET check_function_bodies = off; SET synchronous_commit = off");
  await client.query(plantSql);
}

const body = `format('LANGUAGE plpgsql AS $b$ BEGIN RAISE LOG %L; RETURN NULL; END $b$', '${marker} ' || s)`;

/** Whatever pg_catalog has itself, exactly so, is left out: that is preferred to what others have made. */
const plantSql = `
CREATE FUNCTION pg_temp.prefix_operators(s text, l text) RETURNS int LANGUAGE plpgsql AS $plant$
DECLARE o text; made int := 0; body text := ${body};
BEGIN
  EXECUTE format('CREATE FUNCTION %I.u(%s) RETURNS %s %s', s, l, l, body);
  FOREACH o IN ARRAY ARRAY['-', '+', '@', '!!', '|/'] LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pg_operator WHERE oprname = o AND oprleft = 0 AND oprright = l::regtype AND oprnamespace = 'pg_catalog'::regnamespace);
    EXECUTE format('CREATE OPERATOR %I.%s (RIGHTARG = %s, FUNCTION = %I.u)', s, o, l, s);
    made := made + 1;
  END LOOP;
  RETURN made;
END $plant$;

CREATE FUNCTION pg_temp.operators(s text, l text, types text[], operators text[]) RETURNS int LANGUAGE plpgsql AS $plant$
DECLARE o text; r text; result text; made int := 0; body text := ${body};
BEGIN
  -- Names of their own: among thousands of one name each look-up takes long.
  FOREACH r IN ARRAY types LOOP
    EXECUTE format('CREATE FUNCTION %I.%I(%s, %s) RETURNS bool %s', s, s || ' b ' || l, l, r, body);
    EXECUTE format('CREATE FUNCTION %I.%I(%s, %s) RETURNS text %s', s, s || ' t ' || l, l, r, body);
    FOREACH o IN ARRAY operators LOOP
      CONTINUE WHEN EXISTS (SELECT FROM pg_operator WHERE oprname = o AND oprleft = l::regtype AND oprright = r::regtype AND oprnamespace = 'pg_catalog'::regnamespace);
      result := CASE WHEN o IN ('+', '-', '*', '/', '%', '||', '->', '->>', '#>', '#>>', '<<', '>>', '&', '|') THEN 't' ELSE 'b' END;
      EXECUTE format('CREATE OPERATOR %I.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %I.%I)', s, o, l, r, s, s || ' ' || result || ' ' || l);
      made := made + 1;
    END LOOP;
  END LOOP;
  RETURN made;
END $plant$;

CREATE FUNCTION pg_temp.steps(s text, types text[]) RETURNS int LANGUAGE plpgsql AS $plant$
DECLARE r text; body text := ${body};
BEGIN
  FOREACH r IN ARRAY types LOOP
    EXECUTE format('CREATE FUNCTION %I.%I(text, %s) RETURNS text %s', s, 'step of aggregates', r, body);
  END LOOP;
  RETURN 0;
END $plant$;

CREATE FUNCTION pg_temp.is_aggregate(n text) RETURNS int LANGUAGE sql AS $plant$
  SELECT CASE WHEN bool_or(p.prokind IN ('a', 'w')) THEN 1 ELSE 0 END FROM pg_proc AS p WHERE p.proname = n AND p.pronamespace = 'pg_catalog'::regnamespace
$plant$;

CREATE FUNCTION pg_temp.functions(s text, n text, aggregate bool, types text[], often text[]) RETURNS int LANGUAGE plpgsql AS $plant$
DECLARE l text; r text; made int := 0; body text := ${body};
BEGIN
  FOREACH l IN ARRAY types LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pg_proc AS p WHERE p.proname = n AND p.pronamespace = 'pg_catalog'::regnamespace AND p.proargtypes::oid[] = ARRAY[l::regtype::oid]);
    IF aggregate THEN
      EXECUTE format('CREATE AGGREGATE %I.%I(%s) (SFUNC = %I.%I, STYPE = text)', s, n, l, s, 'step of aggregates');
    ELSE
      EXECUTE format('CREATE FUNCTION %I.%I(%s) RETURNS text %s', s, n, l, body);
    END IF;
    made := made + 1;
  END LOOP;
  IF aggregate THEN RETURN made; END IF;
  FOREACH l IN ARRAY often LOOP
    FOREACH r IN ARRAY often LOOP
      CONTINUE WHEN EXISTS (SELECT FROM pg_proc AS p WHERE p.proname = n AND p.pronamespace = 'pg_catalog'::regnamespace AND p.proargtypes::oid[] = ARRAY[l::regtype::oid, r::regtype::oid]);
      EXECUTE format('CREATE FUNCTION %I.%I(%s, %s) RETURNS text %s', s, n, l, r, body);
      made := made + 1;
    END LOOP;
  END LOOP;
  RETURN made;
END $plant$;

CREATE FUNCTION pg_temp.casts(s text) RETURNS int LANGUAGE plpgsql AS $plant$
DECLARE n text; r text; made int := 0; body text := ${body};
BEGIN
  -- Types under the names of the standard ones, and another one, with casts to and from these.
  FOREACH n IN ARRAY ARRAY['text', 'int8', 'oid', 'jsonb', 'regclass', 'name', 'mine'] LOOP
    EXECUTE format('CREATE TYPE %I.%I AS (v pg_catalog.text)', s, n);
    FOREACH r IN ARRAY ARRAY['text', 'int8', 'jsonb', 'oid', 'bool'] LOOP
      made := made + 2;
      EXECUTE format('CREATE FUNCTION %I.%I(%I.%I) RETURNS pg_catalog.%I %s', s, 'cast_' || made, s, n, r, body);
      EXECUTE format('CREATE CAST (%I.%I AS pg_catalog.%I) WITH FUNCTION %I.%I(%I.%I) AS IMPLICIT', s, n, r, s, 'cast_' || made, s, n);
      EXECUTE format('CREATE FUNCTION %I.%I(pg_catalog.%I) RETURNS %I.%I %s', s, 'cast_' || made, r, s, n, body);
      EXECUTE format('CREATE CAST (pg_catalog.%I AS %I.%I) WITH FUNCTION %I.%I(pg_catalog.%I) AS IMPLICIT', r, s, n, s, 'cast_' || made, r);
    END LOOP;
  END LOOP;
  RETURN made;
END $plant$`;
