BEGIN
  unreached_at := to_timestamp(pg_sequence_last_value('hawser_data.gateway_state_unreached_ms_seq') / 1000.0);
END
