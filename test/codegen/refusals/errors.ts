import { error, goodError, type RefusalCase } from "./spec-text.js";

/** Errors. */
export const errorCases: readonly RefusalCase[] = [
  {
    name: "an SQLSTATE that is none",
    proto: error('sqlstate: "5500" exit_status: 70 remedy: "y"'),
    says: 'enum FooError.FOO_ERROR_LOST: sqlstate "5500" is not five of 0-9 and A-Z, or means success; choose one of the class that fits',
  },
  {
    name: "an SQLSTATE that means success",
    proto: error('sqlstate: "00000" exit_status: 70 remedy: "y"'),
    says: 'enum FooError.FOO_ERROR_LOST: sqlstate "00000" is not five of 0-9 and A-Z, or means success; choose one of the class that fits',
  },
  {
    name: "an exit status that means success",
    proto: error('sqlstate: "55000" remedy: "y"'),
    says: "enum FooError.FOO_ERROR_LOST: exit_status 0 is none of 64 usage, 69 away, 70 failed, 73 taken, 75 again, 77 rights, 78 set-up",
  },
  {
    name: "an error without a remedy",
    proto: error('sqlstate: "55000" exit_status: 70'),
    says: "enum FooError.FOO_ERROR_LOST: the error has no remedy",
  },
  {
    name: "an error without a comment",
    proto: `enum FooError { FOO_ERROR_UNSPECIFIED = 0; FOO_ERROR_LOST = 1; } ${goodError("lost")}`,
    says: "enum FooError.FOO_ERROR_LOST: the error has no comment, which says what happened",
  },
  {
    name: "a value among errors that is none",
    proto: error('sqlstate: "55000" exit_status: 70 remedy: "y"').replace("= 1; }", "= 1; FOO_ERROR_ODD = 2; }"),
    says: 'enum FooError.FOO_ERROR_ODD: the error has no details; give the option error with code: "odd"',
  },
  {
    name: "details of no error",
    proto: `${error('sqlstate: "55000" exit_status: 70 remedy: "y"')} ${goodError("found")}`,
    says: 'file: error "found" is no value of an enum of hawser.details_of_no_error.v1',
  },
  {
    name: "details of an error twice",
    proto: `${error('sqlstate: "55000" exit_status: 70 remedy: "y"')} ${goodError("lost")}`,
    says: 'file: error "lost" has its details twice',
  },
  {
    name: "an error with number 0",
    proto: `enum FooError { FOO_ERROR_LOST = 0; } ${goodError("lost")}`,
    says: "enum FooError.FOO_ERROR_LOST: number 0 means no error; give the error another number",
  },
];
