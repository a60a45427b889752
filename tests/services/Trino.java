import io.trino.testing.*; import io.trino.Session; import java.util.*; import java.nio.file.*;
import static io.trino.testing.TestingSession.testSessionBuilder;
public class Trino {
  public static void main(String[] a) throws Exception {
    long s=System.nanoTime();
    Session session = testSessionBuilder().setCatalog("hive").setSchema("lake").build();
    DistributedQueryRunner r = DistributedQueryRunner.builder(session).setWorkerCount(0).addCoordinatorProperty("http-server.http.port","@PORT@").build();
    //Hive r.installPlugin(new io.trino.plugin.hive.HivePlugin());
    //Iceberg r.installPlugin(new io.trino.plugin.iceberg.IcebergPlugin());
    //Delta r.installPlugin(new io.trino.plugin.deltalake.DeltaLakePlugin());
    for (int i=0;i<a.length;i++) {
      String[] kv=a[i].split("=",2); Properties p=new Properties(); try (var in=Files.newInputStream(Path.of(kv[1]))) { p.load(in);} 
      Map<String,String> m=new HashMap<>(); for (String k: p.stringPropertyNames()) if(!k.equals("connector.name")) m.put(k,p.getProperty(k));
      try { r.createCatalog(kv[0], p.getProperty("connector.name"), m); System.out.println("catalog "+kv[0]); } catch (Throwable t) { System.out.println("FAIL "+kv[0]+" "+t); Throwable c=t.getCause(); if(c!=null) System.out.println(c); }
    }
    System.out.println("READY "+r.getCoordinator().getBaseUrl()+" "+(System.nanoTime()-s)/1000000+" ms"); System.out.flush();
    Thread.sleep(Long.MAX_VALUE);
  }
}
