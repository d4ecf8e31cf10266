# ALTER EXTENSION UPDATE with workers running and the older library loaded, pg_dump and restore,
# pg_upgrade, CREATE and DROP EXTENSION in a loop and rolled back.
#
# The next version is made up.  Its scripts go into a copy of the installation: a server finds its
# share directory from where its program is.

use strict;
use warnings;

use ErosTest;
use File::Copy;
use File::Path qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %dir = map { my ($out) = PostgreSQL::Test::Utils::run_command([ 'pg_config', "--$_" ]); chomp $out; $_ => $out } qw(bindir sharedir libdir pkglibdir);
my $copy = PostgreSQL::Test::Utils::tempdir;

# Copies the programs; links all else, but for the folder that gets the scripts.
sub copy_installation
{
	make_path($copy . $dir{bindir}, $copy . "$dir{sharedir}/extension", $copy . ($dir{pkglibdir} =~ s{/[^/]+$}{}r));
	for my $program (glob "$dir{bindir}/*")
	{
		copy($program, $copy . $program) and chmod 0755, $copy . $program if -f $program;
	}
	for my $file (glob("$dir{sharedir}/*"), glob("$dir{sharedir}/extension/*"))
	{
		symlink $file, $copy . $file unless -e $copy . $file;
	}
	symlink $dir{pkglibdir}, $copy . $dir{pkglibdir};
	return $copy . ($dir{bindir} =~ s{/bin$}{}r);
}

my $node = PostgreSQL::Test::Cluster->new('main', install_path => copy_installation());
my $scripts = "$copy$dir{sharedir}/extension";

# the made-up next version, and the way back
my $version = slurp_file("$scripts/eros.control") =~ /default_version = '(.*)'/ ? $1 : die 'no version';
append_to_file("$scripts/eros--$version--99.0.sql",
	"CREATE FUNCTION eros.of_next_version() RETURNS integer LANGUAGE sql AS 'SELECT 99';\n"
	  . "CREATE FUNCTION eros.halt_of_next_version(OUT a bigint, OUT b float8, OUT c float8, OUT d float8, OUT e bigint, OUT f bigint, OUT g text, OUT h text, OUT i text) RETURNS record AS 'MODULE_PATHNAME', 'eros_halt_info' LANGUAGE C;\n"
	  . "SELECT eros.announce();\n");
append_to_file("$scripts/eros--$version--99.1.sql",
	"CREATE FUNCTION eros.symbol_of_next_version() RETURNS void AS 'MODULE_PATHNAME', 'eros_symbol_of_next_version' LANGUAGE C;\n");
append_to_file("$scripts/eros--99.0--$version.sql",
	"DROP FUNCTION eros.of_next_version(); DROP FUNCTION eros.halt_of_next_version(); SELECT eros.announce();\n");

$node->init;
$node->append_conf('postgresql.conf', eros_settings());
$node->start;
create_eros($node, 'postgres');
soon_idle($node, 'postgres', 2);
gated_handler($node, 'postgres');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 10) u');
polls_to($node, 'postgres', 'SELECT count(*) FROM app.call', 'ten users have their results', 10);

# the update, in the middle of the work
open_gate($node, 'postgres', 0);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(11, 20) u');
polls_to($node, 'postgres', computing(), 'a worker is at work');
my $session = open_session($node, 'postgres');
in_session($session, q{SELECT eros.get('gated', 1)});
$node->safe_psql('postgres', q{ALTER EXTENSION eros UPDATE TO '99.0'});
open_gate($node, 'postgres', 1);
polls_to($node, 'postgres', q{SELECT status FROM eros.status}, 'the status tells that EROS is parked',
	"parked: the library has version $version, the extension 99.0: restart the server if the library was replaced, then ALTER EXTENSION eros UPDATE");
polls_to($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eros worker'}, 'the worker has ended', 0);
my $done = value($node, 'postgres', 'SELECT count(*) FROM app.call');
cmp_ok($done, '<=', 12, 'after its batch at most');
is(value($node, 'postgres', q{SELECT eros_touch(21), eros_touch(ARRAY[22]::bigint[]); SELECT eros.of_next_version()}), "|\n99", 'touches go on');
for my $sql (q{SELECT eros.get('gated', 1)}, q{SELECT * FROM eros.get_many('gated', '{1}'::bigint[])},
	q{SELECT eros.run_now('gated', 1)}, q{SELECT eros.sweep()}, q{SELECT eros.retry('gated')}, 'SELECT * FROM eros.halt_of_next_version()',
	q{SELECT eros.add_handler('more', 'app.gated', 1)}, q{SELECT eros.drop_handler('gated')}, q{SELECT eros.invalidate('gated', 1)})
{
	my ($status, $stdout, $stderr) = $node->psql('postgres', $sql);
	like($stderr, qr/ERROR:  the library of EROS has version \Q$version\E, the extension in this database 99.0\nHINT/, "a clear error: $sql");
}
like(in_session($session, q{SELECT eros.get('gated', 1)}), qr/ERROR:  the library of EROS has version/, 'in a session that was there before, too');
my ($status, $stdout, $stderr);
for my $view ('status', 'status_phase', 'status_handler', 'status_worker', 'status_queue', 'status_cache', 'status_error',
	'status_halt', 'status_latency', 'status_worth', 'status_prediction', 'history_server', 'history_phase', 'history_handler',
	'metrics', 'problems()', 'checklist()', 'predict(1000)', 'metrics_text()', 'top()', 'report()')
{
	($status, $stdout, $stderr) = $node->psql('postgres', "SELECT * FROM eros.$view");
	is($status == 0 ? '' : $stderr, '', "eros.$view can be read");
}
$node->restart;
polls_to($node, 'postgres', 'SELECT status FROM eros.status', 'a restart with the older library does not change that',
	"parked: the library has version $version, the extension 99.0: restart the server if the library was replaced, then ALTER EXTENSION eros UPDATE");
my $parked = () = slurp_file($node->logfile) =~ /EROS pauses in this database/g;
cmp_ok($parked, '<=', 2, 'the log has one line for each start');

# the versions fit again
$node->safe_psql('postgres', "ALTER EXTENSION eros UPDATE TO '$version'");
polls_to($node, 'postgres', 'SELECT count(*) FROM app.call WHERE user_id <= 20', 'EROS goes on by itself', 20);
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'nothing is lost', 0);
is(value($node, 'postgres', 'SELECT count(*) - count(DISTINCT user_id) FROM app.call'), 0, 'nothing was done twice');
polls_to($node, 'postgres', 'SELECT status FROM eros.status', 'all is well', 'ok');

# an update that is refused, or rolled back
($status, $stdout, $stderr) = $node->psql('postgres', q{ALTER EXTENSION eros UPDATE TO '99.1'});
like($stderr, qr/could not find function "eros_symbol_of_next_version"/, 'an update to what the older library does not have is refused');
$node->safe_psql('postgres', q{BEGIN; ALTER EXTENSION eros UPDATE TO '99.0'; ROLLBACK; SELECT eros_touch(31)});
polls_to($node, 'postgres', q{SELECT eros.get('gated', 31)}, 'an update that is rolled back changes nothing', '31');

# pg_dump and restore: the configuration, and nothing else
my $dump = $node->basedir . '/dump.sql';
$node->safe_psql('postgres', q{UPDATE eros.phase SET cpu_percent = 42 WHERE phase = 2; SELECT eros.disable_handler('gated')});
command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'the dump can be restored');
polls_to($node, 'restored', running(), 'EROS runs in the restored database');
is(value($node, 'restored', 'SELECT cpu_percent FROM eros.phase WHERE phase = 2'), 42, 'phases are restored');
is(value($node, 'restored', 'SELECT name, enabled FROM eros.handler'), 'gated|f', 'handlers, too');
is(value($node, 'restored', 'SELECT (SELECT count(*) FROM eros.job) + (SELECT count(*) FROM eros.cache) + (SELECT count(*) FROM eros.activity) + (SELECT count(*) FROM eros.snapshot)'),
	0, 'users, jobs and results are not');
unlike(slurp_file($dump), qr/^COPY eros\.(job|cache|activity|snapshot|spilled_touch|unlogged_mark)/m, 'nor are they in the dump');
$node->safe_psql('restored', q{SELECT eros.enable_handler('gated'); SELECT eros_touch(5)});
polls_to($node, 'restored', q{SELECT eros.get('gated', 5)}, 'the handler works there', '5');

# in a loop, rolled back, in a savepoint, while workers run
for my $i (1 .. 5)
{
	$node->safe_psql('postgres', 'CREATE DATABASE loop') if $i == 1;
	$node->safe_psql('loop', 'CREATE EXTENSION eros');
	$node->safe_psql('loop', 'DROP EXTENSION eros');
	$node->safe_psql('loop', 'BEGIN; CREATE EXTENSION eros; SELECT eros_touch(1); ROLLBACK');
	$node->safe_psql('loop', 'BEGIN; SAVEPOINT a; CREATE EXTENSION eros; ROLLBACK TO a; CREATE EXTENSION eros; DROP EXTENSION eros; COMMIT');
}
is(value($node, 'loop', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'eros'}), 0, 'nothing of it is left');
polls_to($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'loop' AND backend_type LIKE 'eros%'}, 'nor is any process', 0);
$node->safe_psql('loop', 'BEGIN; CREATE EXTENSION eros; DROP EXTENSION eros; CREATE EXTENSION eros; COMMIT');
polls_to($node, 'loop', running(), 'and it can be created for good');
$node->safe_psql('loop', 'BEGIN; DROP EXTENSION eros; ROLLBACK');
polls_to($node, 'loop', running(), 'it goes on after a DROP that is rolled back');
soon_idle($node, 'loop');
gated_handler($node, 'loop');
$node->safe_psql('loop', 'SELECT eros_touch(7)');
polls_to($node, 'loop', q{SELECT eros.get('gated', 7)}, 'and works', '7');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
eval { close_session($session) };

# pg_upgrade between two clusters of the version that is there
$node->safe_psql('postgres', q{DROP DATABASE loop; DROP DATABASE restored; SELECT eros.enable_handler('gated')});
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'no job is left before the upgrade', 0);
my $before = value($node, 'postgres', 'SELECT idle_users FROM eros.status');
my $calls = value($node, 'postgres', 'SELECT count(*) FROM app.call');
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', eros_settings());
$node->stop;
chdir $PostgreSQL::Test::Utils::tmp_check;
my @upgrade = ('pg_upgrade', '-d', $node->data_dir, '-D', $new->data_dir, '-b', $dir{bindir}, '-B', $dir{bindir},
	'-s', $new->host, '-p', $node->port, '-P', $new->port);
command_ok([ @upgrade, '--check' ], 'pg_upgrade --check finds nothing');
command_ok([@upgrade], 'pg_upgrade');
$new->start;
polls_to($new, 'postgres', running(), 'EROS runs in the new cluster');
polls_to($new, 'postgres', 'SELECT idle_users FROM eros.status', 'idle users are there', $before);
is(value($new, 'postgres', q{SELECT eros.get('gated', 3)}), 3, 'so are results');
$new->safe_psql('postgres', 'SELECT eros_touch(41)');
polls_to($new, 'postgres', q{SELECT eros.get('gated', 41)}, 'and it works', '41');
is(value($new, 'postgres', 'SELECT count(*) FROM app.call'), $calls + 1, 'nothing is computed again');
polls_to($new, 'postgres', 'SELECT status FROM eros.status', 'all is well', 'ok');
$new->stop;
done_testing();
