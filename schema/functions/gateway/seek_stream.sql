BEGIN
  PERFORM hawser.request_seek(name, start);
END
