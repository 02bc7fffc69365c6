import { fn, type RefusalCase } from "./spec-text.js";

/** SQL functions. */
export const functionCases: readonly RefusalCase[] = [
  {
    name: "a parameter without a default behind one that has it",
    proto: fn(
      "optional int32 p_id = 1; int32 p_to = 2;",
      "int32 id = 1;",
      'body_file: "a.sql" optional_defaults: true',
    ),
    says: "message FooRequest.p_to: a parameter after one with a default needs a default too: make it optional",
  },
  {
    name: "a body that is not below the project",
    proto: fn("int32 p_id = 1;", "int32 id = 1;", 'body_file: "../foo.sql"'),
    says: 'rpc FooService.Foo: body_file "../foo.sql" is not a .sql file below the root of the project',
  },
  {
    name: "a function without a result",
    proto: fn("int32 p_id = 1;", ""),
    says: "rpc FooService.Foo: FooResponse has no field; a function returns at least one column",
  },
  {
    name: "a function that streams",
    proto: fn("int32 p_id = 1;", "int32 id = 1;").replace("returns (", "returns (stream "),
    says: "rpc FooService.Foo: an SQL function cannot stream; use returns_set for any number of rows",
  },
  {
    name: "a function for an unknown role",
    proto: fn("int32 p_id = 1;", "int32 id = 1;", 'body_file: "a.sql" execute: "everyone"'),
    says: 'rpc FooService.Foo: unknown role "everyone"; use one of hawser_owner, hawser_peer, hawser_nats, hawser_bridge, hawser_executor',
  },
  {
    name: "rules on a parameter of a function that no role executes",
    proto: fn("int32 p_id = 1 [(hawser.spec.v1.rules) = {min: 1}];", "int32 id = 1;"),
    says: "message FooRequest.p_id: rules on a result, or on a parameter of a function that no role executes, would not be checked",
  },
  {
    name: "rules on a result of the schema's function",
    proto: fn(
      "int32 p_id = 1;",
      "int32 id = 1 [(hawser.spec.v1.rules) = {min: 1}];",
      'body_file: "a.sql" execute: "hawser_peer"',
    ),
    says: "message FooResponse.id: rules on a result, or on a parameter of a function that no role executes, would not be checked",
  },
  ...[
    { field: "string p_a = 1;", rule: "max_bytes" },
    { field: "optional bytes p_a = 1;", rule: "max_bytes" },
    { field: 'string p_a = 1 [(hawser.spec.v1.column) = {type: "jsonb"}];', rule: "max_bytes" },
    { field: 'string p_a = 1 [(hawser.spec.v1.column) = {type: "pg_snapshot"}];', rule: "max_bytes" },
    { field: "repeated int64 p_a = 1;", rule: "max_items" },
    { field: "repeated string p_a = 1 [(hawser.spec.v1.rules) = {max_items: 1}];", rule: "max_total_bytes" },
  ].map(({ field, rule }) => ({
    name: `no ${rule} of ${field}`,
    proto: fn(field, "int32 id = 1;", 'body_file: "a.sql" execute: "hawser_peer"'),
    says: `message FooRequest.p_a: a parameter of a function that roles can call needs a limit: add the rule ${rule}`,
  })),
  {
    name: "a parameter with a default",
    proto: fn('int32 p_id = 1 [(hawser.spec.v1.column) = {default: "1"}];', "int32 id = 1;"),
    says: "message FooRequest.p_id: a parameter or result of a function has no default, generated value or sequence",
  },
  {
    name: "a parameter of the schema's function whose name no function takes",
    proto: fn("int32 time = 1;", "int32 id = 1;"),
    says: 'message FooRequest.time: column name "time" is a word of SQL\'s grammar; choose another name',
  },
  {
    name: "a result of the schema's function whose name no function takes",
    proto: fn("int32 p_id = 1;", "int32 row = 1;"),
    says: 'message FooResponse.row: column name "row" is a word of SQL\'s grammar; choose another name',
  },
  ...["search_path = public", "work_mem='4MB'", "a = b; DROP TABLE c"].map((setting) => ({
    name: `the setting ${setting} of a function`,
    proto: fn("int32 p_id = 1;", "int32 id = 1;", `body_file: "a.sql" settings: "${setting}"`),
    says: `rpc FooService.Foo: settings "${setting}" is not of the form "name = value", or is the search_path`,
  })),
];
