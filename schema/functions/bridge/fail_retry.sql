BEGIN
  held := (SELECT f.held FROM hawser.fence_batch(p_epoch) AS f);
  UPDATE hawser_data.dead_letters AS d
     SET retry_requested = false, error_code = left(p_error_code, @dead_letter_error_code.max_bytes@),
         error_message = p_error_message, attempts = d.attempts + p_attempts
   WHERE held AND d.id = p_id AND d.origin = 'subscription' AND d.retry_requested;
END
