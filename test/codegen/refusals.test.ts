/**
 * Mistakes in a spec are refused, in words that name the file, the element, the rule and the remedy. There are cases of those
 * that nothing else would notice and that users would meet: limits and rules that nobody checks, rights, codes, names.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateCodecs } from "../../codegen/codecs/generate.js";
import { generateSql } from "../../codegen/sql/generate.js";
import { compile, refusal, requestFor } from "./support/request.js";

/** Mistakes of one kind. Options of `hawser.spec.v1` and `buf.validate.field` are without their packages: `(table)`, `(field)`. */
interface Mistakes {
  /** Proto file around a mistake, behind its imports. */
  readonly within: (mistake: string) => string;
  /** Mistakes, by what is said of them behind the file's name. FILE is that name. */
  readonly said: Readonly<Record<string, string>>;
}

const table = (fields: string, option = 'primary_key: "id"') =>
  `message Foo { option (table) = {name: "foo" ${option}}; ${fields} }`;
const rpc = (option: string, request: string, response: string) =>
  `service FooService { rpc Foo(FooRequest) returns (FooResponse) { option ${option}; } }
   message FooRequest { ${request} } message FooResponse { ${response} }`;
const called = '(sql_function) = {name: "foo" body_file: "a.sql" execute: "hawser_peer"}';
const gateway = (option: string) => `(gateway_function) = {${option}}`;
const reading = 'name: "foo" method: "foo" changes: false';
const readingT = reading.replace("foo", "foo_{T}");
const details = (code: string) =>
  `option (error) = {code: "${code}" sqlstate: "55000" exit_status: 70 remedy: "Find it."};`;

const groups: Readonly<Record<string, Mistakes>> = {
  "a column": {
    within: (fields) => `option (named_rules) = {name: "street" about: "A street." rules: {max_bytes: 8}};
      ${table(`int32 id = 1; ${fields}`)}`,
    said: {
      'message Foo.a: unknown column type "money"; use one of smallint, integer, bigint, bigserial, text, bytea, boolean, timestamptz, jsonb, xid8, pg_snapshot, int8multirange, tid':
        'string a = 2 [(column) = {type: "money"}];',
      "message Foo.a: a column cannot be double; use int32, uint32, int64, uint64, string, bytes, bool or google.protobuf.Timestamp, or a list of one of them":
        "double a = 2;",
      'message Foo.order: column name "order" is a reserved word of SQL; choose another name': "int32 order = 2;",
      [`message Foo.${"a".repeat(54)}: constraint name "foo_${"a".repeat(54)}_bytes" has 64 bytes, Postgres takes 63; shorten it`]: `string ${"a".repeat(54)} = 2 [(rules) = {max_bytes: 5}];`,
      "message Foo.a: the option setting has no meaning here; it belongs in a message with the option settings":
        'int32 a = 2 [(setting) = {default: "1"}];',
      "message Foo.a: rule max: 40000 lies outside the type, -32768 to 32767":
        'int32 a = 2 [(column) = {type: "smallint"}, (rules) = {max: 40000}];',
      'message Foo.a: rule pattern: "^\\d+$" has "\\d" where JavaScript and Postgres may differ; use only classes, \\uXXXX, groups and quantifiers':
        'string a = 2 [(rules) = {pattern: "^\\\\d+$" pattern_means: "must be digits"}];',
      'message Foo.a: there are no rules named "stret"; there are street': 'string a = 2 [(rules) = {named: "stret"}];',
      'message Foo.a: rule max_bytes is one of "street" already':
        'string a = 2 [(rules) = {named: "street" max_bytes: 4}];',
    },
  },
  "a table": {
    within: (option) =>
      table(
        "int32 id = 1; string name = 2; optional int32 maybe = 3; string long = 4 [(rules) = {max_bytes: 1500}];",
        option,
      ),
    said: {
      'message Foo: table "foo" has no primary_key': "",
      'message Foo: unknown role "public"; use one of hawser_owner, hawser_peer, hawser_nats, hawser_bridge, hawser_executor, hawser_viewer':
        'primary_key: "id" grant: {role: "public" privileges: "SELECT"}',
      'message Foo: table "foo" is granted to hawser_peer and hawser_bridge; grant it to one of hawser_peer, hawser_bridge, and let others read it by shown_to or a function':
        'primary_key: "id" grant: {role: "hawser_peer" privileges: "SELECT"} grant: {role: "hawser_bridge" privileges: "SELECT"}',
      'message Foo: table "foo" is granted to hawser_nats; grant it to one of hawser_peer, hawser_bridge, and let others read it by shown_to or a function':
        'primary_key: "id" grant: {role: "hawser_nats" privileges: "SELECT"}',
      "message Foo: notify: the payload can reach 9092 bytes, and NOTIFY takes less than 8000; name fewer columns":
        'primary_key: "id" notify: {channel: "foo" columns: ["id", "long"]}',
    },
  },
  "a view": {
    within: (view) => `${table("int32 id = 1;")} message Bar { ${view} }`,
    said: {
      'message Bar.id: the column has the type integer in the table "foo"':
        'option (view) = {name: "bar" table: "foo"}; int64 id = 1;',
      "message Bar: a message is either a table, a view, a group of settings or a group of metrics":
        'option (view) = {name: "bar"}; option (settings) = {title: "Bar"}; int32 id = 1;',
    },
  },
  "a method": {
    within: (method) =>
      `service FooService { rpc Foo ${method}; } } message FooRequest {} message FooResponse { int32 id = 1; }`,
    said: {
      "rpc FooService.Foo: an SQL function cannot stream; use returns_set for any number of rows": `(FooRequest) returns (stream FooResponse) { option ${called}`,
    },
  },
  "an SQL function": {
    within: (option) => rpc(`(sql_function) = {name: "foo" ${option}}`, "int32 p_id = 1;", "int32 id = 1;"),
    said: {
      'rpc FooService.Foo: body_file "../foo.sql" is not a .sql file below the root of the project':
        'body_file: "../foo.sql"',
      'rpc FooService.Foo: settings "a = b; DROP TABLE c" is not of the form "name = value", or is one of all functions':
        'body_file: "a.sql" settings: "a = b; DROP TABLE c"',
    },
  },
  "a parameter or result of an SQL function": {
    within: (parameters) => {
      const [request = "", response = "int32 id = 1;"] = parameters.split(" → ");
      return rpc(called, request, response);
    },
    said: {
      "message FooResponse.id: rules on a result, or on a parameter of a function that no role executes, would not be checked":
        "int32 p_a = 1; → int32 id = 1 [(rules) = {min: 1}];",
      'message FooRequest.a: two parameters of Foo are named "a" without their p_': "int32 p_a = 1; int32 a = 2;",
      "message FooRequest.p_a: a parameter of a function that roles can call needs a limit: add the rule max_bytes":
        "optional bytes p_a = 1;",
      "message FooRequest.p_a: a parameter of a function that roles can call needs a limit: add the rule max_total_bytes":
        "repeated string p_a = 1 [(rules) = {max_items: 1}];",
    },
  },
  "a function of the gateway": {
    within: (option) => rpc(gateway(option), "", "int64 id = 1;"),
    said: {
      "rpc FooService.Foo: a function that is not local needs changes: true if a call may change something in NATS":
        'name: "foo" method: "foo"',
      // The second one would replace the first.
      'rpc FooService.Foo: function "foo" is taken by rpc FooService.Foo in FILE; choose another': `${reading} alias: "foo"`,
    },
  },
  "a parameter of a function of the gateway": {
    within: (request) => rpc(gateway(request.includes("payload") ? readingT : reading), request, ""),
    said: {
      "message FooRequest.a: a function cannot take or return real": "double a = 1;",
      "message FooRequest.a: a parameter of a function that roles can call needs a limit: add the rule max_bytes":
        "string a = 1;",
    },
  },
  "a result of a function of the gateway": {
    within: (response) => rpc(gateway(response.includes("payload") ? readingT : reading), "", response),
    said: {
      "message FooResponse.a: rules on a result would not be checked": "string a = 1 [(rules) = {max_bytes: 3}];",
    },
  },
  "a setting": {
    within: (fields) => `message Foo { option (settings) = {title: "Foo"}; ${fields} }
      message Fixed { option (settings) = {title: "Fixed" fixed: true};
        bool a = 1 [(setting) = {default: "true" ${fields === "" ? "part: SETTING_PART_TUNING" : ""}}]; }`,
    said: {
      "message Foo.a: default 11 breaks the setting's own rule: must be 1 to 10":
        'uint32 a = 1 [(setting) = {default: "11"}, (rules) = {min: 1 max: 10}];',
      "message Foo.a: a setting that is a number needs a range: rules with min and max":
        'uint32 a = 1 [(setting) = {default: "1"}, (rules) = {min: 1}];',
      "message Foo.a: rule max: 9007199254740992 is above 2^53 - 1, which a setting cannot hold exactly":
        'uint64 a = 1 [(setting) = {default: "1"}, (rules) = {min: 1 max: 9007199254740992}];',
    },
  },
  "a metric": {
    within: (field) => `message Foo { option (metrics) = {title: "Foo"};
      // Help.
      ${field} }`,
    said: {
      "message Foo.hawser_a: the comment above a metric is its help: a sentence that ends with a full stop":
        "// No full stop\n double hawser_a = 1 [(metric) = {type: METRIC_TYPE_GAUGE}];",
      "message Foo.hawser_a: the names of counters, and only they, end with _total":
        "double hawser_a = 1 [(metric) = {type: METRIC_TYPE_COUNTER}];",
      'message Foo.hawser_a_seconds: the unit "" is not the one with which the name ends':
        "double hawser_a_seconds = 1 [(metric) = {type: METRIC_TYPE_GAUGE}];",
    },
  },
  "an error": {
    within: (option) => `option (error) = {code: "lost" ${option}};
      enum FooError { FOO_ERROR_UNSPECIFIED = 0;
        // It is lost.
        FOO_ERROR_LOST = 1; }`,
    said: {
      'enum FooError.FOO_ERROR_LOST: sqlstate "00000" is not five of 0-9 and A-Z, or means success; choose one of the class that fits':
        'sqlstate: "00000" exit_status: 70 remedy: "y"',
    },
  },
  "errors and their details": {
    within: (text) => text,
    said: {
      'enum FooError.FOO_ERROR_ODD: the error has no details; give the option error with code: "odd"': `enum FooError { FOO_ERROR_UNSPECIFIED = 0; FOO_ERROR_ODD = 2;
          // It is lost.
          FOO_ERROR_LOST = 1; } ${details("lost")}`,
      "enum FooError.FOO_ERROR_LOST: number 0 means no error; give the error another number": `enum FooError { FOO_ERROR_LOST = 0; } ${details("lost")}`,
      "enum FooError.FOO_ERROR_GONE: wire code 1 is taken by lost": `enum FooError { option allow_alias = true; FOO_ERROR_UNSPECIFIED = 0;
          // It is lost.
          FOO_ERROR_LOST = 1; FOO_ERROR_GONE = 1; } ${details("lost")} ${details("gone")}`,
    },
  },
  "a message that is sent": {
    within: (text) => `message Foo { ${text} } enum Bar { BAR_UNSPECIFIED = 0; BAR_ONE = 1; BAR_TWO = 2; }`,
    said: {
      "message Foo.a: rule int32.gt is not generated for int32, which takes int32.gte, int32.lte":
        "int32 a = 1 [(field).int32.gt = 1];",
      'message Foo.a: TypeScript refuses NUL in a text with rules; give the rule string.not_contains: "\\000"':
        "string a = 1 [(field).string.max_bytes = 1];",
      'message Foo.a: rule string.pattern: no named rules have these limits and the pattern "^[\\u0001-\\u001f]$"; add some, which say what it means':
        'string a = 1 [(field).string = {pattern: "^[\\\\x01-\\\\x1f]$" not_contains: "\\000"}];',
      "message Foo.a: jstype = JS_NUMBER limits the field; give the rule uint64.lte: at most 9007199254740991":
        "uint64 a = 1 [jstype = JS_NUMBER, (field).uint64.lte = 9007199254740992];",
      "message Foo: rule oneof is not generated; use a oneof, or a rule in CEL":
        'option (buf.validate.message).oneof = {fields: "a"}; int32 a = 1;',
      'message Foo: a rule in CEL needs a message: "… must …"':
        'option (buf.validate.message).cel = {id: "a" expression: "this.a > 0"}; int32 a = 1;',
    },
  },
  "two elements of one name": {
    within: (text) => text,
    said: {
      'message Bar: name "foo" is taken by message Foo in FILE; choose another': `${table("int32 id = 1;")}
        ${table("int32 id = 1;").replace("message Foo", "message Bar")}`,
      'rpc FooService.Foo: function "foo(text, text)" is taken by rpc FooService.Foo in FILE; choose another': rpc(
        gateway('name: "foo" alias: "foo" local: true body_file: "a.sql" execute: "hawser_peer"'),
        "string a = 1 [(rules) = {max_bytes: 1}]; bytes b = 2 [(gateway_value) = {payload: true}, (rules) = {max_bytes: 1}];",
        "",
      ),
    },
  },
  "rules with a name": {
    within: (rules) => `option (named_rules) = {name: "street" ${rules}};`,
    said: {
      "file: rule min does not apply to named rules, which takes min_bytes, max_bytes, pattern, pattern_means, in":
        'about: "A street." rules: {min: 4}',
    },
  },
};

/** Bodies of a function, by what is said of them. SQL is the file's path. */
const sqlFiles: Readonly<Record<string, string>> = {
  "rpc FooService.Foo: body_file SQL is not a PL/pgSQL block: DECLARE … BEGIN … END": "BEGIN NULL; END; DROP TABLE x",
  "rpc FooService.Foo: body_file SQL names the setting FooSettings.limit_ms, which is not a fixed setting":
    "BEGIN PERFORM @FooConstants.foo_ms@ + @FooSettings.limit_ms@; END",
  "rpc FooService.Foo: body_file SQL names hawser_peer_data.bar, and the table is hawser_data.bar":
    "BEGIN PERFORM FROM hawser_peer_data.bar; END",
  "rpc FooService.Foo: body_file SQL contains @foo(bar)@; known are @message_id(row)@, @headers_of(row)@, @memory_bytes(row)@, @is_for_all(row)@, @taken_bytes(row)@, @is_free(row)@, @is_paused(row)@, @is_limited(row)@, @has_settings(row)@, @rate_left(row)@, @is_started(row)@, @first_of_key(row)@, @places_of(row)@, @reported(row)@, @shell_word(row)@, @with_failure(row)@, @is_own(row)@, @is_later(row)@, @is_later_job(row)@, @is_held(row)@, @is_marked(row)@, @job_state(row)@, @worker_name(row)@, @job_due(row)@, @header_key(row)@, @user_key(row)@, @has_header(row)@, @is_in_history(row)@, @marks_of(row)@, @keep_ms_of(row)@, @kept_of(row)@, @is_awaited(row)@, @keep(row)@, @due_ms(row)@, @with_attempts(row)@, @is_blocking(row)@, @own_recipient(row)@, @raise_lease_lost(row)@, @lease_of(row)@, @waits_for(row)@, @route(row)@":
    "BEGIN PERFORM @foo(bar)@; END",
};

const ofSqlFile = (file: string): string =>
  `${rpc(`(sql_function) = {name: "foo" body_file: "${file}"}`, "", "int32 id = 1;")}
   message FooConstants { option (settings) = {title: "Foo" fixed: true}; uint32 foo_ms = 1 [(setting) = {default: "7"}]; }
   message Bar { option (table) = {name: "bar" primary_key: "id"}; int32 id = 1; }
   message FooSettings { option (settings) = {title: "Foo"};
     uint32 limit_ms = 1 [(setting) = {default: "7"}, (rules) = {min: 0 max: 9}]; }`;

interface Refused {
  readonly path: string;
  readonly says: string;
}

const protos: Record<string, string> = {};

/** A case with a file and a package of its own: buf builds all of them at once, and a request asks for one. */
function refused(proto: string, says: string): Refused {
  const area = `case${Object.keys(protos).length}`;
  const path = `hawser/${area}/v1/spec.proto`;
  protos[path] = `syntax = "proto3"; package hawser.${area}.v1;
    import "buf/validate/validate.proto"; import "hawser/spec/v1/options.proto";
    ${proto.replace(/\((?=[a-z_]+\)(?: =|\.))/g, "(hawser.spec.v1.").replaceAll("(hawser.spec.v1.field)", "(buf.validate.field)")}`;
  return { path, says: says.replace("FILE", path) };
}

const cases = Object.entries(groups).map(([kind, { within, said }]): [kind: string, all: Refused[]] => [
  kind,
  Object.entries(said).map(([says, mistake]) => refused(within(mistake), says)),
]);
const sqlCases = Object.entries(sqlFiles).map(([says, text], index) => {
  const file = `schema/case_${index}.sql`;
  return { ...refused(ofSqlFile(file), says.replace("SQL", file)), file, text };
});
const right = refused(table("int32 id = 1;"), "");

/** A list without a greatest length. */
const framesPath = "hawser/peer/v1/frames.proto";
protos[framesPath] = `syntax = "proto3"; package hawser.peer.v1;
  message Frame { oneof kind { Batch batch = 1; } } message Batch { repeated bytes payloads = 1; }`;

let descriptors: Awaited<ReturnType<typeof compile>>;

beforeAll(async () => {
  descriptors = await compile(protos);
});

const refusalOf = ({ path }: Refused): Promise<string> => refusal(requestFor(descriptors, [path]), generateSql);

describe.each(cases)("a mistake in %s", (_, all) => {
  it.each(all)("is refused: $says", async (one) => {
    expect(await refusalOf(one)).toBe(`${one.path}: ${one.says}`);
  });
});

describe("an SQL file of the spec", () => {
  /** A root of the test's own: paths of SQL files are relative to the working directory. */
  const root = mkdtempSync(join(tmpdir(), "hawser-refusals-"));
  const before = process.cwd();

  beforeAll(() => {
    mkdirSync(join(root, "schema"));
    for (const { file, text } of sqlCases) writeFileSync(join(root, file), text);
    process.chdir(root);
  });
  afterAll(() => {
    process.chdir(before);
    rmSync(root, { recursive: true });
  });

  it.each(sqlCases)("is refused: $says", async (one) => {
    expect(await refusalOf(one)).toBe(`${one.path}: ${one.says}`);
  });
});

describe("a generator", () => {
  it("refuses a list of a frame without a greatest length", async () => {
    expect(await refusal(requestFor(descriptors, [framesPath]), generateCodecs)).toBe(
      `${framesPath}: message Batch.payloads: a list of a frame has a rule repeated.max_items`,
    );
  });

  it("refuses an optional field of a frame, which an older side leaves out", async () => {
    const optional = protos[framesPath]!.replace("repeated bytes payloads", "optional uint32 count");
    expect(await refusal(requestFor(await compile({ [framesPath]: optional }), [framesPath]), generateCodecs)).toBe(
      `${framesPath}: message Batch.count: fields of frames are not optional: 0 or an empty value says that it is missing`,
    );
  });

  it("refuses nothing of what is right", async () => {
    expect(await refusalOf(right)).toBe("");
  });
});
