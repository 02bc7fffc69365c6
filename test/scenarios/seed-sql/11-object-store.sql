-- Upload
SELECT nats_put_file('store', 'file.txt', 'content'::bytea);
SELECT nats_put_file('store', 'file.txt', 'content'::bytea, 'hub');

-- Download
SELECT nats_get_file('store', 'file.txt');

-- Delete
SELECT nats_delete_file('store', 'file.txt');

-- Metadata and listing
SELECT * FROM nats_get_file_info('store', 'file.txt');
SELECT * FROM nats_get_file_list('store');
SELECT * FROM nats_get_file_list('store', 'hub');
