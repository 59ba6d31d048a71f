import java.sql.*;
import java.io.StringReader;
import java.io.StringWriter;
import java.util.Properties;

/** JDBC: one conversation, printed; run directly and through pgproxy and compared. */
public class JdbcClient {
    interface Work { void run() throws Exception; }

    static Connection connection;

    static void attempt(String label, Work work) throws Exception {
        System.out.println("== " + label);
        try {
            work.run();
        } catch (SQLException e) {
            System.out.println("failed " + e.getSQLState() + " " + e.getMessage());
        }
    }

    static void print(ResultSet rows) throws SQLException {
        ResultSetMetaData about = rows.getMetaData();
        while (rows.next()) {
            StringBuilder line = new StringBuilder();
            for (int i = 1; i <= about.getColumnCount(); i++) {
                line.append(about.getColumnName(i)).append(':').append(about.getColumnTypeName(i)).append('=')
                    .append(rows.getString(i)).append(' ');
            }
            System.out.println(line);
        }
    }

    static void query(String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            boolean rows = statement.execute(sql);
            while (rows || statement.getUpdateCount() != -1) {
                if (rows) print(statement.getResultSet());
                else System.out.println("count " + statement.getUpdateCount());
                rows = statement.getMoreResults();
            }
        }
    }

    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", args[1]);
        properties.setProperty("password", args[2]);
        connection = DriverManager.getConnection(args[0], properties);
        attempt("simple", () -> query("select 1 as a, 'é' as b, null::text as c"));
        attempt("several", () -> query("select 1; select 2; select 1/0; select 3"));
        attempt("create", () -> query("create table jdbc_client (id int primary key, name text)"));
        attempt("prepared often enough for a named statement", () -> {
            try (PreparedStatement insert = connection.prepareStatement("insert into jdbc_client values (?, ?)")) {
                for (int i = 0; i < 12; i++) {
                    insert.setInt(1, i);
                    insert.setString(2, i % 3 == 0 ? null : "name " + i);
                    System.out.println(insert.executeUpdate());
                }
            }
        });
        attempt("batch with an error", () -> {
            try (PreparedStatement insert = connection.prepareStatement("insert into jdbc_client values (?, 'b')")) {
                for (int i : new int[] {20, 21, 1, 22}) {
                    insert.setInt(1, i);
                    insert.addBatch();
                }
                insert.executeBatch();
            }
        });
        attempt("generated keys", () -> {
            try (PreparedStatement insert = connection.prepareStatement(
                    "insert into jdbc_client values (30, 'k')", Statement.RETURN_GENERATED_KEYS)) {
                insert.executeUpdate();
                print(insert.getGeneratedKeys());
            }
        });
        attempt("fetch size inside a transaction", () -> {
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(3);
                print(statement.executeQuery("select id, name from jdbc_client order by id"));
            }
            Savepoint point = connection.setSavepoint();
            try {
                query("select nowhere");
            } catch (SQLException e) {
                System.out.println("failed " + e.getSQLState() + " " + e.getMessage());
                connection.rollback(point);
            }
            query("select 'goes on'");
            connection.commit();
            connection.setAutoCommit(true);
        });
        attempt("metadata", () -> {
            DatabaseMetaData about = connection.getMetaData();
            print(about.getColumns(null, "public", "jdbc_client", null));
            print(about.getPrimaryKeys(null, "public", "jdbc_client"));
            print(about.getIndexInfo(null, "public", "jdbc_client", false, true));
            print(about.getTables(null, "public", "jdbc%", null));
        });
        attempt("copy", () -> {
            org.postgresql.copy.CopyManager copy = ((org.postgresql.PGConnection) connection).getCopyAPI();
            System.out.println(copy.copyIn("copy jdbc_client from stdin", new StringReader("40\tforty\n41\t\\N\n")));
            StringWriter out = new StringWriter();
            System.out.println(copy.copyOut("copy (select * from jdbc_client order by id) to stdout csv", out));
            System.out.println(out);
        });
        attempt("large object", () -> {
            connection.setAutoCommit(false);
            org.postgresql.largeobject.LargeObjectManager manager =
                ((org.postgresql.PGConnection) connection).getLargeObjectAPI();
            long id = manager.createLO();
            org.postgresql.largeobject.LargeObject object = manager.open(id);
            object.write("a large object".getBytes("UTF-8"));
            object.seek(2);
            System.out.println(new String(object.read(5), "UTF-8"));
            object.close();
            manager.delete(id);
            connection.commit();
            connection.setAutoCommit(true);
        });
        attempt("drop", () -> query("drop table jdbc_client"));
        connection.close();
    }
}
