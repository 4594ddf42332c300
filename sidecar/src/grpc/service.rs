//! The service `dapr.proto.runtime.v1.Dapr`: one line a method.

use outrigger_core::annotations::truthy;
use outrigger_proto::{
    common::InvokeResponse,
    runtime::{
        DeleteBulkStateRequest, DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkStateRequest,
        GetBulkStateResponse, GetMetadataRequest, GetMetadataResponse, GetStateRequest, GetStateResponse,
        InvokeServiceRequest, SaveStateRequest, SetMetadataRequest, ShutdownRequest, dapr_server::Dapr,
    },
};
use tonic::{Request, Response, Status};

use super::{Api, invoke, state};

#[tonic::async_trait]
impl Dapr for Api {
    async fn invoke_service(&self, request: Request<InvokeServiceRequest>) -> Result<Response<InvokeResponse>, Status> {
        invoke::invoke(self, request).await
    }

    async fn get_state(&self, request: Request<GetStateRequest>) -> Result<Response<GetStateResponse>, Status> {
        Ok(Response::new(state::get(&self.state, request.into_inner()).await?))
    }

    async fn get_bulk_state(
        &self,
        request: Request<GetBulkStateRequest>,
    ) -> Result<Response<GetBulkStateResponse>, Status> {
        Ok(Response::new(state::bulk_get(&self.state, request.into_inner()).await?))
    }

    async fn save_state(&self, request: Request<SaveStateRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(state::save(&self.state, request.into_inner()).await?))
    }

    async fn delete_state(&self, request: Request<DeleteStateRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(state::delete(&self.state, request.into_inner()).await?))
    }

    async fn delete_bulk_state(&self, request: Request<DeleteBulkStateRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(
            state::bulk_delete(&self.state, request.into_inner()).await?,
        ))
    }

    async fn execute_state_transaction(
        &self,
        request: Request<ExecuteStateTransactionRequest>,
    ) -> Result<Response<()>, Status> {
        Ok(Response::new(state::transact(&self.state, request.into_inner()).await?))
    }

    async fn get_metadata(&self, _: Request<GetMetadataRequest>) -> Result<Response<GetMetadataResponse>, Status> {
        Ok(Response::new(self.metadata.answer().into_proto()))
    }

    async fn set_metadata(&self, request: Request<SetMetadataRequest>) -> Result<Response<()>, Status> {
        let SetMetadataRequest { key, value } = request.into_inner();
        self.metadata
            .set(key, value)
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok(Response::new(()))
    }

    async fn shutdown(&self, request: Request<ShutdownRequest>) -> Result<Response<()>, Status> {
        let force = request
            .metadata()
            .get("dapr-force-shutdown")
            .and_then(|value| value.to_str().ok())
            .is_some_and(truthy);
        if force {
            self.shutdown.force();
        } else {
            self.shutdown.start();
        }
        Ok(Response::new(()))
    }
}
